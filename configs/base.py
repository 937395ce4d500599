"""The defaults of `rlvr_jax.config.Config`, as a start for config files.

A config file defines `get_config()`, which starts from this one and states the differences.
"""

import ml_collections
from ml_collections import config_dict

from rlvr_jax.config import Config, from_dict, to_dict


def get_config() -> ml_collections.ConfigDict:
    """Every key with its default; those of `algorithm` are None, which is the value of `config.algorithm.preset`."""
    values = to_dict(Config())
    values["algorithm"] = {key: config_dict.placeholder(type(value)) for key, value in values["algorithm"].items()}
    return ml_collections.ConfigDict(values)


def set_tasks(config: ml_collections.ConfigDict, **tasks: dict) -> None:
    """Chooses the tasks: for each a dictionary of what differs from `TaskConfig`'s defaults.

    Their options then are keys `config.tasks.<task>.options.*` of their own.
    """
    config.tasks = ml_collections.ConfigDict(to_dict(from_dict({"tasks": tasks}))["tasks"])
