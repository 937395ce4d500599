"""GSM8K with a byte-level tokenizer and a small random policy: exercises the whole loop, learns nothing.

A policy of this size learns nothing here; the config runs real data through the loop. The data set is downloaded, or
prepared from local files:

    rlvr train --config=gsm8k --workdir=runs/gsm8k \\
        --config.data.manual_dir=FOLDER
"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    base.set_tasks(config, gsm8k={})
    config.tokenizer = "bytes"
    config.policy.max_length = 1280
    config.policy.head_chunk = 1024
    config.rollout.prompts = 8
    config.rollout.group_size = 4
    config.rollout.max_prompt_length = 1152
    config.rollout.max_response_length = 64
    config.optimizer.learning_rate = 1e-4
    config.optimizer.microbatches = 4
    config.training.num_steps = 10
    config.training.save_every = 10
    config.evaluation.problems = 64
    config.evaluation.pass_problems = 16
    config.evaluation.pass_samples = 4
    config.evaluation.ks = (1, 4)
    return config
