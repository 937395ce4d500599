"""Tools of a user's own, some of which misbehave."""

import os
import time
from pathlib import Path
from typing import Literal

from rlvr_jax.tools import CallError, Tool


def repeat(text: str, times: int = 2, style: Literal["plain", "loud"] = "plain", sep: str = "") -> str:
    """Repeats a text.

    Args:
        text: What is repeated.
        times: How often.
        style: Whether it is shouted.
        sep: Between the repetitions.
    """
    return sep.join([text] * times) if style == "plain" else sep.join([text.upper()] * times)


def made(top: int = 3) -> Tool:
    """A tool that is made with options."""
    return Tool("top", f"The top {top}.", {"type": "object"}, f"{__name__}:listed", {"top": top}, tokens=9)


def listed(top):
    return list(range(top))


def undescribed(text: str) -> str:
    return text


def untyped(text):
    """Has no types.

    Args:
        text: Some text.
    """
    return text


def bad(what: str) -> object:
    """Misbehaves.

    Args:
        what: In which way.
    """
    match what:
        case "raises":
            raise RuntimeError("no luck")
        case "refuses":
            raise CallError("nothing found", "not_found")
        case "leaves":
            raise SystemExit(3)
        case "hangs":
            time.sleep(1000)
        case "dies":
            os._exit(9)
        case "hoards":
            return bytearray(1 << 40)
        case "floods":
            return "x" * 5_000_000
        case "bytes":
            return b"\x00\xff" * 8
        case "nul":
            return "a\0b"
        case "half":
            return "\ud800"
        case "control":
            return "\x01\x02\x03abc"
        case "object":
            return object()
        case "infinite":
            return {"x": float("inf")}
        case "file":
            return Path("/no/such/folder/notes.txt").read_text()
        case "nothing":
            return None
        case "data":
            return {"é": [1, 2.5, True]}
    return "what?"
