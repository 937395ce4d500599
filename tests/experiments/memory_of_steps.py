"""A term of the reward that records the memory of the training process and its workers at each step."""

import json
import os
from pathlib import Path

import jax
import psutil

SEEN: dict[str, int] = {}  # groups so far


def term(group):
    SEEN["groups"] = SEEN.get("groups", 0) + 1
    if SEEN["groups"] % int(os.environ["RUN_GROUPS"]) == 0:
        this = psutil.Process()
        arrays = jax.live_arrays()
        row = {
            "resident": this.memory_info().rss,
            "workers": sum(child.memory_info().rss for child in this.children(recursive=True)),
            "arrays": len(arrays),
            "array_bytes": sum(array.nbytes for array in arrays),
        }
        with Path(os.environ["RUN_MEMORY"]).open("a") as file:
            file.write(json.dumps(row) + "\n")
    return [0.0] * len(group.episodes)
