"""The losses that `config.algorithm.loss` may name."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from rlvr_jax import named
from rlvr_jax.errors import error_text
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.distillation import distillation
from rlvr_jax.learner.losses import Loss, policy_gradient
from rlvr_jax.learner.own_pairs import own_pairs
from rlvr_jax.policy import PolicyConfig

# (teacher's architecture, rows of a sample, and the arguments of `policy_gradient`) -> loss.
LOSSES: Mapping[str, Callable[[PolicyConfig | None, int, PolicyConfig, AlgorithmConfig, float, int], Loss]] = {
    "policy_gradient": lambda _, __, *given: policy_gradient(*given),
    "preferences": lambda _, windows, *given: own_pairs(*given[:-1], windows),
    "distillation": lambda teacher, _, config, *given: distillation(config, teacher, *given),
}


def make_loss(
    config: PolicyConfig,
    algorithm: AlgorithmConfig,
    temperature: float,
    max_length: int,
    teacher: PolicyConfig | None = None,
    windows: int = 1,
) -> Loss:
    """The loss that an algorithm names.

    Args:
      config, algorithm, temperature, max_length: as of `policy_gradient`.
      teacher: architecture of the teacher, if there is one.
      windows: rows of a sample at most, one for each context window.

    Raises:
      ValueError: there is no such loss, or its function raises or returns something else.
    """
    if algorithm.loss in LOSSES:
        return _shared(LOSSES[algorithm.loss], teacher, windows, config, algorithm, temperature, max_length)
    if not named.is_name(algorithm.loss):
        raise ValueError(f"there is no loss {algorithm.loss!r}; there are {', '.join(LOSSES)}, and 'module:function'")
    make = named.load(algorithm.loss)
    try:
        loss = make(config, algorithm, temperature, max_length)
    except (Exception, SystemExit) as error:
        where = f"{named.raised_at(error, algorithm.loss)}: {algorithm.loss!r}"
        raise ValueError(f"{where}: {error_text(error)}") from error
    if not isinstance(loss, Loss):
        raise ValueError(
            f"{named.where(algorithm.loss)}: {algorithm.loss!r} returned {type(loss).__name__}, not a Loss"
        )
    return loss


@lru_cache(maxsize=32)  # the runs of a process share losses, and so what is compiled for them
def _shared(make: Callable[..., Loss], *arguments: Any) -> Loss:
    return make(*arguments)
