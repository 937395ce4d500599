"""Checking of annotations: what jaxtyping does to the functions of the packages in pyproject.toml, in less time.

jaxtyping binds a call's arguments and wraps a function twice, so that its shapes have the same names throughout. Most
functions have no shapes in their annotations: their types are checked by the type checker alone.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from functools import partial
from typing import Any

from jaxtyping import jaxtyped


def checked(what: Any = None, *, typechecker: Callable) -> Any:
    """In place of `jaxtyping.jaxtyped`: a function whose annotations are checked, or a dataclass whose fields are."""
    if what is None:
        return partial(checked, typechecker=typechecker)
    function = what.__init__ if dataclasses.is_dataclass(what) else what
    if not inspect.isfunction(function) or any(map(needs_jaxtyping, function.__annotations__.values())):
        return jaxtyped(what, typechecker=typechecker)
    if function is what:
        return typechecker(what)
    if not getattr(what, "__no_type_check__", False) and not hasattr(function, "__wrapped__"):
        what.__init__ = typechecker(function)
    return what


def needs_jaxtyping(annotation: Any) -> bool:
    """True if there are shapes in it, or names that are not resolved."""
    if isinstance(annotation, (str, typing.ForwardRef)):
        return True
    if typing.get_origin(annotation) is typing.Literal:
        return False
    parts = annotation if isinstance(annotation, list) else typing.get_args(annotation)
    return getattr(annotation, "__module__", "").startswith("jaxtyping") or any(map(needs_jaxtyping, parts))
