"""Character training in small: five instructions about letters, answered with manners by chance (docs/tulu.md).

The policy is that of `tulu_small`; statements, judge and commands are in docs/tulu.md.
"""

from rlvr_jax.configs import base, tulu_small


def get_config():
    config = tulu_small.get_config()
    base.set_tasks(
        config,
        **{
            name: {"name": "rlvr_jax.experiments.benchmarks.character:asked", "options": {"name": name}}
            for name in ("copy", "reverse", "sort", "next", "pairs")
        },
    )
    config.rollout.max_response_length = 13
    config.preferences.optimizer.learning_rate = 1e-4
    return config
