"""The annotations of the packages that handle arrays are checked while the tests run: shapes, types, dataclasses."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ForwardRef, Literal

import numpy as np
import pytest
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, PyTree, TypeCheckError

from rlvr_jax.config import SftConfig
from rlvr_jax.learner.optimizer import make_schedule
from rlvr_jax.policy import PolicyConfig
from rlvr_jax.training.checksums import on_host
from tests.annotations import checked, needs_jaxtyping

ERRORS = (BeartypeCallHintViolation, TypeCheckError)
Rows = Float[np.ndarray, "rows width"]


@checked(typechecker=beartype)
def product(x: Rows, y: Float[np.ndarray, "width"]) -> Float[np.ndarray, "rows"]:
    return x @ y if len(x) else y


def test_dimensions_of_a_name_are_of_one_size_in_arguments_and_result():
    assert product(np.ones((2, 3)), np.ones(3)).shape == (2,)
    for x, y in [((2, 3), 2), ((0, 3), 3)]:
        with pytest.raises(TypeCheckError):
            product(np.ones(x), np.ones(y))


@checked(typechecker=beartype)
def counted(number: int, kind: Literal["up", "down"] = "up") -> Iterator[int]:
    yield from range(number) if kind == "up" else range(number, 0, -1)


def test_types_are_checked_where_there_are_no_shapes():
    assert list(counted(2)) == [0, 1]
    for wrong in [("2",), (2, "sideways")]:
        with pytest.raises(ERRORS):
            list(counted(*wrong))


@checked(typechecker=beartype)
@dataclasses.dataclass(frozen=True)
class Named:
    name: str
    parts: tuple[int, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def test_so_are_the_fields_of_dataclasses():
    assert dataclasses.replace(Named("a"), parts=(1,)) == Named("a", (1,), {})
    for wrong in [(1,), ("a", ("b",))]:
        with pytest.raises(ERRORS):
            Named(*wrong)


@pytest.mark.parametrize(
    ("annotation", "needed"),
    [
        *[
            (x, True)
            for x in (Rows, Rows | None, tuple[int, Rows], Callable[[Rows], int], PyTree, "Rows", ForwardRef("X"))
        ],
        *[(x, False) for x in (int, str | None, Literal["a"], Callable[[int], str], dict[str, Any], Any, None)],
    ],
)
def test_jaxtyping_is_needed_for_shapes_and_for_names_that_are_not_resolved(annotation, needed):
    assert needs_jaxtyping(annotation) == needed


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: PolicyConfig(num_layers="2"),
        lambda: SftConfig(batch_size=0.5),
        lambda: make_schedule({}, 1),
        lambda: on_host([1.0]),
    ],
)
def test_functions_and_configs_of_the_packages_are_checked(wrong):
    with pytest.raises(ERRORS):
        wrong()
