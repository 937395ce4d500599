"""A worker of a sweep that is forked as the commands are, and draws no curves."""

import os
import sys
from pathlib import Path

FORKED = Path(__file__).parents[1] / "experiments" / "forked.py"

if __name__ == "__main__":
    line = [sys.executable, "-IS", FORKED, os.environ["RUN_FORKS"], "rlvr_jax.sweeps.worker", *sys.argv[1:]]
    os.execv(sys.executable, line)
