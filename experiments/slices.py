"""Devices that are not here, and configs without the files that they name, for `rlvr compile`."""

import dataclasses
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.config import Config
from rlvr_jax.errors import CheckpointError, ConfigError

RUNS = {"train": "rl", "sft": "sft", "prefer": "preferences"}  # kinds, by the command that begins them


def set_environment() -> None:
    """Settings of the process: JAX on CPU, the TPU compiler without a search for TPUs, no network."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # a program for absent devices can't be read again
    os.environ["HF_HUB_OFFLINE"] = "1"
    library = Path(sys.prefix) / "tpu" / "libtpu" / "libtpu.so"  # where `make test` has it
    if library.is_file():
        os.environ.setdefault("TPU_LIBRARY_PATH", str(library))
    for name, value in (
        ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
        ("TPU_SKIP_MDS_QUERY", "1"),
        ("TPU_WORKER_HOSTNAMES", "localhost"),
        ("TPU_ACCELERATOR_TYPE", "v5litepod-8"),
    ):
        os.environ.setdefault(name, value)


@dataclasses.dataclass
class Places:
    """The devices of the command line.

    Attributes:
      title: their name.
      devices: of a topology, or abstract ones.
      chip: their published numbers; None of a CPU.
      torus: chips along each axis; empty without a torus.
      compiles: False for arithmetic alone.
    """

    title: str
    devices: Sequence[Any]
    chip: Any
    torus: tuple[int, ...]
    compiles: bool

    def analysis(self, setup: Any) -> Any:
        """The `Analysis` of a run on these devices: compiles its programs, or estimates them."""
        from rlvr_jax.training.analysis import compiled, estimated

        if not self.compiles:
            return estimated(setup, self.chip, self.torus)
        said = lambda program: print(f"compiling {program} ...", file=sys.stderr, flush=True)  # noqa: E731
        return compiled(setup, self.chip, self.torus, said)


def places(topology: str | None, gpu: str | None, number: int, compiles: bool) -> Places:
    """The devices of `--topology`, or `number` GPUs.

    Raises:
      ConfigError: there is no such slice or GPU, or no TPU compiler.
    """
    import jax

    from rlvr_jax.parallel.chips import CHIPS, abstract

    if gpu:
        chip, known = CHIPS.get(gpu), [name for name, chip in CHIPS.items() if not chip.dimensions]
        if chip is None or chip.dimensions:
            raise ConfigError(f"--gpu={gpu} is not one of {', '.join(known)}")
        return Places(f"{number} x {gpu}", abstract(chip, number), chip, (), compiles=False)
    if topology == "cpu":
        return Places("cpu", jax.devices(), None, (), compiles)
    name, _, shape = topology.partition(":")
    chip, known = CHIPS.get(name), [name for name, chip in CHIPS.items() if chip.dimensions]
    if name not in known:
        raise ConfigError(
            f"--topology={topology}: there is no chip {name!r}; there are {', '.join(known)}, each with its numbers of "
            "chips along the axes of the torus, such as v5e:4x4, and cpu"
        )
    if not re.fullmatch("x".join([r"[1-9]\d*"] * chip.dimensions), shape):
        raise ConfigError(
            f"--topology={topology}: a slice is the name of a chip and its numbers of chips along the axes of "
            "the torus, such as v5e:4x4, v5p:2x2x4, v6e:8x8 or tpu7x:2x2x1"
        )
    torus = tuple(map(int, shape.split("x")))
    devices = _slice(topology, torus) if compiles else abstract(chip, math.prod(torus) * chip.per_chip)
    return Places(topology, devices, chip, torus, compiles)


def _slice(topology: str, torus: tuple[int, ...]) -> Sequence[Any]:
    """The devices of a slice, as the TPU compiler sees them."""
    from jax.experimental import topologies

    single = {"chips_per_host_bounds": (1, 1, 1)} if set(torus) == {1} else {}
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **single).devices
    except (RuntimeError, ValueError) as error:  # the compiler's, of a shape or of itself
        text = str(error).splitlines()[0]
        if any(words in text for words in ("libtpu", "initialize backend", "TPU_LIBRARY_PATH", "not installed")):
            raise ConfigError(f"the TPU compiler is missing: pip install 'rlvr_jax[tpu-compiler]' ({text})") from error
        raise ConfigError(f"--topology={topology}: there is no such slice: {text}") from error


def offline(config: Config) -> Config:
    """The config without files: the architecture of a checkpoint at hand, else that of `config.policy`.

    Raises:
      ConfigError: neither says what the policy is.
    """
    from rlvr_jax.hf.families import with_shape_of
    from rlvr_jax.hf.pretrained import pretrained_config

    shape = config.policy
    if config.pretrained:
        try:
            shape = with_shape_of(shape, pretrained_config(config.pretrained))
        except CheckpointError as error:
            if not shape.vocab_size:
                raise ConfigError(
                    f"config.pretrained = {config.pretrained!r} is not on this machine, and config.policy does not "
                    "say its architecture: give a local folder, or set config.policy (see configs/models.py)"
                ) from error
    tokenizer = "bytes" if shape.vocab_size else config.tokenizer
    return dataclasses.replace(config, pretrained="", init_from="", tokenizer=tokenizer, policy=shape, reporting=())
