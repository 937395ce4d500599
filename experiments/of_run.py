"""The config of an earlier run, from its record: --config=RUN/config.json."""

from pathlib import Path

import ml_collections
from ml_collections import config_dict

from rlvr_jax.config import Config, to_dict
from rlvr_jax.learner.presets import preset
from rlvr_jax.training.workdir import read_record


def get_config(path: str) -> ml_collections.ConfigDict:
    """Every key with its value. Those of `algorithm` that its preset sets are None, so that another can take its place.

    Raises:
      ConfigError: there is no such file, or it is damaged.
    """
    values = to_dict(read_record(Path(path).expanduser()))
    own = values["algorithm"]
    of_preset = to_dict(Config(algorithm=preset(own["preset"])))["algorithm"]
    values["algorithm"] = {
        key: config_dict.placeholder(type(value)) if key != "preset" and value == of_preset[key] else value
        for key, value in own.items()
    }
    return ml_collections.ConfigDict(values, allow_dotted_keys=True)
