"""Networks of other runs or checkpoints that a run reads and does not train: reward models, a teacher, helpers."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax

from rlvr_jax import parallel
from rlvr_jax.config import anywhere
from rlvr_jax.errors import CheckpointError, ConfigError
from rlvr_jax.hf.pretrained import check_weights, load_params, pretrained_config
from rlvr_jax.hf.source import find_checkpoint
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.text.tokenizers import pretrained_tokenizer
from rlvr_jax.training import reading
from rlvr_jax.training.networks import network_shapes
from rlvr_jax.training.setup import Setup, make_setup
from rlvr_jax.training.versions import asked, reads_teacher, step_of
from rlvr_jax.training.workdir import HELDOUT, holds_reward_model, read_config


@dataclasses.dataclass(frozen=True)
class Frozen:
    """A network that can be loaded.

    Attributes:
      shape: its architecture.
      load: a function that reads its parameters onto the devices of the run.
    """

    shape: PolicyConfig
    load: Callable[[], Params]


def find_frozen(setup: Setup, source: str, key: str, network: Literal["policy", "reward"]) -> Frozen:
    """The network of a workdir or a Hugging Face checkpoint, checked, without reading its parameters.

    Of a workdir it is that of the step in `setup.versions`, or the newest.

    Args:
      setup: of the run that reads it.
      source: a workdir; or a checkpoint's folder, or for a policy its id on the hub.
      key: of the config that names it.
      network: a policy, or a reward model.

    Raises:
      ConfigError: it is none, can't be read, or has another vocabulary than the policy.
    """
    folder = Path(source).expanduser()
    if network == "reward" and not folder.is_dir():
        raise ConfigError(f"{key}: there is no folder {source}")
    of_run = (folder / "config.json").is_file() and (folder / "metrics.jsonl").is_file()
    try:
        step = step_of(setup.versions.get(key, ""))
        tokenizer, found = _of_run(setup, folder, network, step) if of_run else _of_checkpoint(setup, source, network)
    except (ConfigError, CheckpointError, ValueError) as error:
        raise ConfigError(f"{key}: {error}") from error
    if tokenizer.get_vocab() != setup.tokenizer.get_vocab():
        what = "reward model" if network == "reward" else "policy"
        why = "scores the policy's tokens, so train it from" if network == "reward" else "reads them, so it has to have"
        raise ConfigError(
            f"{key}: the {what} in {source} has another vocabulary ({len(tokenizer)} tokens) than the policy "
            f"({len(setup.tokenizer)}); it {why} the same tokenizer"
        )
    return found


def find_teacher(setup: Setup) -> Frozen | None:
    """The policy of `config.teacher`, if the algorithm reads it. Raises as `find_frozen`."""
    if not reads_teacher(setup.config.algorithm):
        return None
    return find_frozen(setup, setup.config.teacher, "config.teacher", "policy")


def find_asked(setup: Setup) -> dict[str, Frozen]:
    """The policies that environments ask (`Env.asked`), by their sources. Raises as `find_frozen`."""
    return {source: find_frozen(setup, source, key, "policy") for key, source in asked(setup).items()}


def _of_run(setup: Setup, folder: Path, network: Literal["policy", "reward"], step: int | None) -> tuple[Any, Frozen]:
    config, mesh = read_config(folder), setup.mesh
    if network == "reward" and not holds_reward_model(folder):
        raise ConfigError(
            f"{folder} holds another run than one of preferences with the loss 'bradley_terry', which trains a "
            "reward model"
        )
    if network == "policy" and holds_reward_model(folder):
        raise ConfigError(f"{folder} holds a reward model, which gives no probabilities of tokens")
    if network == "reward" and not (folder / HELDOUT).is_file():
        raise ConfigError(f"the run in {folder} has not ended: it holds no {HELDOUT}")
    made = make_setup(anywhere(config, mesh.size), problems=False, devices=parallel.devices_of(mesh))
    shapes = network_shapes(made.policy, mesh, network)
    reading.check_loadable(folder, shapes, network, step)
    return made.tokenizer, Frozen(made.policy, lambda: reading.load_params(folder, shapes, step, network)[0])


def _of_checkpoint(setup: Setup, source: str, network: Literal["policy", "reward"]) -> tuple[Any, Frozen]:
    policy, scalar = setup.policy, network == "reward"
    folder = Path(source).expanduser() if scalar else find_checkpoint(source)
    shape = dataclasses.replace(
        pretrained_config(folder), dtype=policy.dtype, param_dtype=policy.dtype, remat="none", head_chunk=0
    )
    check_weights(folder, shape, scalar=scalar)
    tokenizer = pretrained_tokenizer(folder)
    shardings = jax.tree.map(lambda x: x.sharding, network_shapes(shape, setup.mesh, network))
    return tokenizer, Frozen(shape, partial(load_params, folder, shape, shardings, scalar=scalar))
