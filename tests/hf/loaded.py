"""The memory that loading a checkpoint takes beside its parameters, measured in a process of its own."""

import resource
import sys
from pathlib import Path

import jax

from rlvr_jax.hf.pretrained import load_params, pretrained_config


def most_memory() -> int:
    """The most that this process has held so far, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    small, large = map(Path, sys.argv[1:])
    jax.block_until_ready(load_params(small, pretrained_config(small)))  # what compiling and importing take
    before = most_memory()
    params = jax.block_until_ready(load_params(large, pretrained_config(large)))
    print(most_memory() - before - sum(x.nbytes for x in jax.tree.leaves(params)))
