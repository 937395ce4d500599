"""Optimizers, after a clip of the gradient norm, with a learning-rate schedule."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import jax
import optax
import optax.contrib

from rlvr_jax.learner.moments import stored_in_8_bits, stored_in_bfloat16


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer.

    Attributes:
      name: "adamw"; "adafactor" without momentum, whose second moments are factored, so that it needs almost no memory;
        or "muon", which orthogonalises the updates of the layers' matrices and keeps one moment of them (AdamW with
        Nesterov momentum for all other parameters). Updates of all three have about the same size, so learning rates
        are comparable.
      learning_rate: peak value.
      warmup_steps: updates over which the learning rate rises linearly from 0.
      decay: decay of the learning rate until the last update: "constant", or "linear" or "cosine" to 0.
      b1, b2: decay of Adam's first and second moments.
      eps: added to the root of Adam's second moments.
      beta: decay of Muon's momentum.
      moments: storage dtype of the moments. "bfloat16" halves their memory; increments below 1/256 of a moment are
        lost, so b2 should be at most 0.99. "float8" halves it again, with stochastic rounding; not with Adafactor.
      offload: whether moments lie in the host's memory between updates, where a run with a large policy has more room.
        An update brings them to the device and back.
      weight_decay: decoupled; of matrices, not of norm scales and biases.
      clip_norm: maximum global gradient norm.
      microbatches: number of sequential microbatches of an update, to save memory.
    """

    name: Literal["adamw", "adafactor", "muon"] = "adamw"
    learning_rate: float = 1e-6
    warmup_steps: int = 0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    beta: float = 0.95
    moments: Literal["float32", "bfloat16", "float8"] = "float32"
    offload: bool = False
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    microbatches: int = 1


def make_schedule(config: OptimizerConfig, num_updates: int) -> optax.Schedule:
    """The learning rate as a function of the number of updates so far."""
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    rest = max(num_updates - config.warmup_steps, 1)
    decay = {
        "constant": lambda: optax.constant_schedule(config.learning_rate),
        "linear": lambda: optax.linear_schedule(config.learning_rate, 0.0, rest),
        "cosine": lambda: optax.cosine_decay_schedule(config.learning_rate, rest),
    }[config.decay]()
    return optax.join_schedules([warmup, decay], [config.warmup_steps]) if config.warmup_steps else decay


def make_optimizer(config: OptimizerConfig, num_updates: int) -> optax.GradientTransformation:
    """The optimizer for a run of `num_updates` updates.

    Source: "adamw": Loshchilov & Hutter 2017 (arXiv:1711.05101), algorithm 2. "adafactor": Shazeer & Stern 2018
    (arXiv:1804.04235), algorithm 4 with the decay of section 7.2 and d = 1, but with the learning rate of the schedule
    instead of one relative to the parameters. "muon": Jordan 2024 (https://kellerjordan.github.io/posts/muon), its
    updates scaled by 0.2 sqrt(larger dimension), as in Liu et al. 2025 (arXiv:2502.16982), eq. 4.
    """
    return _make_optimizer(replace(config, microbatches=1), 0 if config.decay == "constant" else num_updates)


@lru_cache(maxsize=32)  # the runs of a process share optimizers, and so what is compiled for them
def _make_optimizer(config: OptimizerConfig, num_updates: int) -> optax.GradientTransformation:
    if config.name == "adamw":
        direction = optax.scale_by_adam(config.b1, config.b2, config.eps)
    elif config.name == "adafactor":
        direction = optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))
    else:
        muon = optax.contrib.muon(
            1.0,
            beta=config.beta,
            eps=config.eps,
            adam_b1=config.b1,
            adam_b2=config.b2,
            muon_weight_dimension_numbers=_matrices,
            consistent_rms=0.2,
        )
        direction = optax.chain(muon, optax.scale(-1.0))
    decay = optax.add_decayed_weights(config.weight_decay, _decayed if config.weight_decay else None)
    optimizer = optax.chain(direction, decay, optax.scale_by_learning_rate(make_schedule(config, num_updates)))
    if config.moments != "float32":
        optimizer = {"bfloat16": stored_in_bfloat16, "float8": stored_in_8_bits}[config.moments](optimizer)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)


def _decayed(params):
    """True for parameters with weight decay: all but norm scales and biases."""

    def is_matrix(path, _):
        return not path[-1].key.endswith(("norm", "bias"))

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def _matrices(params):
    """The inner and outer axes of the layers' weight matrices; None for other parameters."""

    def axes(path, x):
        names = [key.key for key in path]
        if names[0] != "layers" or x.ndim < 3:
            return None
        inner = tuple(range(1, x.ndim - 1)) if names[-1] == "out" else (1,)
        return optax.contrib.MuonDimensionNumbers(inner, tuple(set(range(1, x.ndim)) - set(inner)))

    return jax.tree_util.tree_map_with_path(axes, params)
