"""MATH with a Python interpreter, in the setting of ReTool (arXiv:2504.11536), with Qwen2.5-1.5B-Instruct.

The policy writes code in fenced blocks in the middle of its solution and reads what it prints; blocks run in the
sandbox, and their output is not trained on. ReTool trains a model of 32 billion parameters by PPO, after a warm start
on solutions with code; this is Dr. GRPO (arXiv:2503.20783) without one, from a model that writes code. Meant for 2 GPUs
of 80 GB (33.4 GiB each by estimate) or a v5p-8 slice, 4 chips (37.4 GiB each, compiled; docs/scale.md). It has not been
run at this size, so there is no curve.

    rlvr train --config=math_python_qwen25_1p5b --workdir=runs/math_python_qwen25_1p5b
"""

from rlvr_jax.configs import math_qwen25_1p5b, models

_CALLS = 4


def get_config():
    config = math_qwen25_1p5b.get_config()
    models.use(config, "Qwen/Qwen2.5-1.5B-Instruct", models.QWEN2_5_1P5B)
    config.tasks.math.environment = "tools"
    config.tasks.math.environment_options = {
        "tools": {"python": {"cpu_seconds": 5, "tokens": 256}},
        "format": "fence",
        "max_calls": _CALLS,
    }
    config.rollout.max_turns = _CALLS + 1
    config.rollout.max_turn_length = 1024
    return config
