"""Objects of JSON whose keys occur once; Python's own reader takes the last value of a repeated key in silence."""

from collections.abc import Sequence
from typing import Any


class RepeatedKeyError(ValueError):
    """A key of an object occurs twice."""


def no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values: an `object_pairs_hook` of `json.loads`. Raises RepeatedKeyError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RepeatedKeyError(f"the key {twice!r:.100} occurs twice")
    return found
