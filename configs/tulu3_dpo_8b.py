"""Tulu 3's second stage, length-normalised DPO, from Llama-3.1-Tulu-3-8B-SFT.

The preferences, `allenai/llama-3.1-tulu-3-8b-preference-mixture`, are read from a folder
(`config.preferences.sources.tulu.file`). As in the commands of allenai/open-instruct: beta 5, learning rate 5e-7 with
linear decay after 10 % of warm-up, batches of 128, 2,048 tokens of prompt and completion together (here 1,024 each), no
weight decay, one epoch; the number of steps is for about 271,000 pairs, a count that is not verified. Meant for
8 GPUs of 80 GB (33.2 GiB each by estimate) or 16 v5p chips (19.9 GiB; 18.6 compiled). It has not been run at this size.

    rlvr prefer --config=tulu3_dpo_8b --workdir=runs/tulu3_dpo_8b
"""

from rlvr_jax.configs import base, models


def get_config():
    config = base.get_config()
    models.use(config, "allenai/Llama-3.1-Tulu-3-8B-SFT", models.TULU3_8B)
    config.policy.max_length = 3072
    config.rollout.max_prompt_length = 1024
    config.rollout.max_response_length = 1024
    config.preferences.loss = "dpo_norm"
    config.preferences.beta = 5.0
    config.preferences.sources = {"tulu": {"file": "data/llama-3.1-tulu-3-8b-preference-mixture", "weight": 1.0}}
    config.preferences.heldout_share = 0.005
    config.preferences.num_steps = 2120
    config.preferences.batch_size = 128
    config.preferences.save_every = 530
    config.preferences.optimizer.learning_rate = 5e-7
    config.preferences.optimizer.warmup_steps = 212
    config.preferences.optimizer.b2 = 0.999
    config.preferences.optimizer.microbatches = 8
    return config
