"""Context compaction as a trained skill: a stream of five chunks, of which a window shows one.

Each context window shows the goal, the summary of the window before, one character, and a chunk; the last one asks for
the newest digit of one of three places (`rlvr_jax/tasks/stream.py`). The windows of an episode share its reward, 1 for
the right answer. The warm start shows the format of summaries and answers, not what is worth keeping.
docs/long_contexts.md has the numbers, against truncation (`summaries` False):

    rlvr sft --config=compaction --workdir=runs/compaction/sft
    rlvr train --config=compaction --workdir=runs/compaction --config.init_from=runs/compaction/sft
"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    base.set_tasks(
        config,
        stream={"options": {"chunks": 5}, "environment": "stream", "environment_options": {"summaries": True}},
        windows={"name": "stream", "options": {"show": "windows"}, "weight": 0.0},
    )
    config.policy.init_scale = 0.125
    config.policy.max_length = 16
    config.rollout.max_prompt_length = 8
    config.rollout.max_response_length = 4
    config.rollout.max_sequences = 5
    config.rollout.chunk = 3
    config.optimizer.learning_rate = 1e-3
    config.sft.tasks = {"windows": 1.0}
    config.sft.batch_size = 64
    config.sft.num_steps = 500
    config.sft.save_every = 500
    config.training.num_steps = 150
    config.training.save_every = 150
    config.evaluation.problems = 128
    config.evaluation.pass_problems = 0
    return config
