"""The moments of an optimizer's state, and their storage in fewer bits than they are computed in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Float8e4m3fn, Float32, Int32, Key

_STREAM = 1  # of the random bits: fold_in(fold_in(key(_STREAM), update), moment)
_LARGEST = float(jnp.finfo(jnp.float8_e4m3fn).max)
_SMALLEST = float(jnp.finfo(jnp.float8_e4m3fn).smallest_subnormal)
_SMALLEST_EXPONENT = -6  # of numbers with all of their 4 significant bits


def map_moments(
    function: Callable[[Any, Any], Any], state: Any, params: Any, other: Callable[[Any], Any] = lambda x: x
) -> Any:
    """The optimizer state with `function(moment, parameter)` for each moment and `other(leaf)` for each other leaf.

    A moment has the shape of a parameter, and its path in the state ends with that of the parameter.
    """
    return _map_with_path(lambda _, *both: function(*both), state, params, other)


def _map_with_path(
    function: Callable[[tuple[Any, ...], Any, Any], Any],
    state: Any,
    params: Any,
    other: Callable[[Any], Any] = lambda x: x,
) -> Any:
    known = dict(jax.tree.leaves_with_path(params))

    def apply(path: tuple[Any, ...], leaf: Any) -> Any:
        for start in range(len(path)):
            if (param := known.get(path[start:])) is not None and param.shape == leaf.shape:
                return function(path, leaf, param)
        return other(leaf)

    return jax.tree_util.tree_map_with_path(apply, state)


def stored_in_bfloat16(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer with its moments rounded to bfloat16 between updates; it computes in float32."""

    def cast(state: Any, params: Any, dtype: Any) -> Any:
        return map_moments(lambda moment, _: moment.astype(dtype), state, params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        new, state = optimizer.update(updates, cast(state, updates, jnp.float32), params)
        return new, cast(state, updates, jnp.bfloat16)

    return optax.GradientTransformation(lambda params: cast(optimizer.init(params), params, jnp.bfloat16), update)


class Packed(NamedTuple):
    """An optimizer state with its moments in 8 bits.

    Attributes:
      count: updates so far.
      scales: of the moments, in the order of the leaves of `state`.
      state: that of the optimizer; each moment, or the root of a second moment, divided by its scale.
    """

    count: Int32[Array, ""]
    scales: Float32[Array, "moments"]
    state: Any


def stored_in_8_bits(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer with moments that are kept as 8-bit floating-point numbers; it computes in float32.

    A moment is divided by its largest entry, so what is less than that by a factor of 2e5 is lost; of Adam's second
    moment the root is kept, for the sake of that range. Entries are rounded stochastically: with 4 significant bits
    nearly every change of a moment is smaller than half of its last place, and would be lost if it were rounded to the
    nearest number. Entries of second moments are never rounded to 0, which would make an update without bound.

    Source: 8-bit moments with scales: Dettmers et al. 2022 (arXiv:2110.02861), who use blocks and another code;
    e4m3 with scales for them: Peng et al. 2023 (arXiv:2310.18313), section 2.2, who keep the second moment in 16 bits.
    """

    def init(params: Any) -> Packed:
        return _packed(optimizer.init(params), params, jnp.zeros((), jnp.int32))

    def update(updates: Any, packed: Packed, params: Any = None) -> tuple[Any, Packed]:
        changes, state = optimizer.update(updates, unpack(packed, updates), params)
        return changes, _packed(state, updates, packed.count + 1)

    return optax.GradientTransformation(init, update)


def _packed(state: Any, params: Any, count: Int32[Array, ""]) -> Packed:
    key, scales = jax.random.fold_in(jax.random.key(_STREAM), count), []

    def pack(path: tuple[Any, ...], moment: Array, _: Any) -> Array:
        second = _is_second(path)
        moment = jnp.sqrt(moment) if second else moment
        largest = jnp.max(jnp.abs(moment), initial=0.0)
        scale = jnp.where(largest > 0, largest / _LARGEST, 1.0)
        rounded = randomly_rounded(jax.random.fold_in(key, len(scales)), moment / scale)
        if second:
            rounded = jnp.where((rounded == 0) & (moment > 0), _SMALLEST, rounded).astype(rounded.dtype)
        scales.append(scale)
        return rounded

    state = _map_with_path(pack, state, params)
    return Packed(count, jnp.stack(scales), state)


def unpack(packed: Packed, params: Any) -> Any:
    """The optimizer state with its moments in float32."""
    scales = iter(packed.scales)

    def restore(path: tuple[Any, ...], moment: Array, _: Any) -> Array:
        moment = moment.astype(jnp.float32) * next(scales)
        return jnp.square(moment) if _is_second(path) else moment

    return _map_with_path(restore, packed.state, params)


def _is_second(path: tuple[Any, ...]) -> bool:
    return any(getattr(key, "name", None) == "nu" for key in path)


def randomly_rounded(key: Key[Array, ""], x: Float[Array, "*shape"]) -> Float8e4m3fn[Array, "*shape"]:
    """`x`, at most 448 in size, in 8 bits: one of its two neighbours, with a probability linear in the distance."""
    exponent = jnp.maximum(jnp.frexp(x)[1] - 1, _SMALLEST_EXPONENT)
    spacing = jnp.ldexp(jnp.ones_like(x), exponent - 3)
    uniform = (jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.float32) + 0.5) / 65536
    return jnp.clip(jnp.floor(x / spacing + uniform) * spacing, -_LARGEST, _LARGEST).astype(jnp.float8_e4m3fn)
