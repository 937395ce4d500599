"""The defaults of `rlvr_jax.config.Config`, for config files to start from.

A config file defines `get_config()`, takes this one, and states what differs.
"""

import ml_collections

from rlvr_jax.config import Config, to_dict


def get_config() -> ml_collections.ConfigDict:
    """Every key with its default."""
    return ml_collections.ConfigDict(to_dict(Config()))


def set_task(config: ml_collections.ConfigDict, name: str, **options) -> None:
    """Chooses the task with its options, which then are keys `config.task.options.*` of their own."""
    config.task.name = name
    config.task.options = ml_collections.ConfigDict(options)
