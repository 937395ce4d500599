"""AdamW with a clipped gradient norm and a learning-rate schedule."""

from dataclasses import dataclass
from typing import Literal

import jax
import optax


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer.

    Attributes:
      learning_rate: peak value.
      warmup_steps: updates over which the learning rate rises linearly from 0.
      decay: of the learning rate until the last update: "constant", or "linear" or "cosine" to 0.
      b1, b2, eps: of Adam.
      weight_decay: decoupled; of matrices, not of norm scales and biases.
      clip_norm: maximum global gradient norm.
      microbatches: number of sequential microbatches of an update, to save memory.
    """

    learning_rate: float = 1e-6
    warmup_steps: int = 0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
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

    Source: Loshchilov & Hutter 2017 (arXiv:1711.05101), algorithm 2.
    """
    adamw = optax.adamw(
        make_schedule(config, num_updates),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=_decayed if config.weight_decay else None,
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def _decayed(params):
    """True for parameters with weight decay: all but norm scales and biases."""

    def is_matrix(path, _):
        return not path[-1].key.endswith(("norm", "bias"))

    return jax.tree_util.tree_map_with_path(is_matrix, params)
