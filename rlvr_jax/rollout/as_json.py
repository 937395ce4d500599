"""Arrays, turns and requests as JSON data, for checkpoints."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Num

from rlvr_jax.rollout.requests import Request, Turn


def text_of(array: Num[np.ndarray, "n"]) -> str:
    """The bytes of an array of 32-bit numbers, little-endian, as text."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def array_of(text: str, dtype: str = "<i4") -> Num[np.ndarray, "n"]:
    """The array of `text_of`."""
    return np.frombuffer(base64.b64decode(text), dtype)


def turn_to_json(turn: Turn) -> dict[str, Any]:
    """A turn as JSON data."""
    return turn._asdict() | {"tokens": text_of(turn.tokens), "logprobs": text_of(turn.logprobs)}


def turn_from_json(data: Mapping[str, Any]) -> Turn:
    """The turn of `turn_to_json`."""
    arrays = {"tokens": array_of(data["tokens"]), "logprobs": array_of(data["logprobs"], "<f4")}
    return Turn(**{**data, **arrays, "earlier": tuple(map(tuple, data["earlier"]))})


def groups_to_json(groups: Sequence[Sequence[Request]]) -> list[dict[str, Any]]:
    """Groups of requests, each with one prompt, as JSON data."""
    return [{"prompt": text_of(group[0].prompt), "requests": list(map(_request_to_json, group))} for group in groups]


def groups_from_json(data: Sequence[Mapping[str, Any]]) -> list[list[Request]]:
    """The groups of `groups_to_json`."""
    groups = []
    for group in data:
        prompt = array_of(group["prompt"])  # one object, by which a sampler knows the group
        groups.append([_request_from_json(request, prompt) for request in group["requests"]])
    return groups


def _request_to_json(request: Request) -> dict[str, Any]:
    data = {name: value for name, value in request._asdict().items() if name not in ("prompt", "new")}
    return data | {"key": text_of(request.key)}


def _request_from_json(data: Mapping[str, Any], prompt: np.ndarray) -> Request:
    return Request(
        **{**data, "key": array_of(data["key"], "<u4"), "stop_tokens": tuple(data["stop_tokens"]), "prompt": prompt}
    )
