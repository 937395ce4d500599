"""A verifier that says in which process of a run it judges, and hangs in one of them once a file is there."""

import os
import time
from pathlib import Path

from rlvr_jax.verifiers.modsum import verify
from rlvr_jax.verifiers.verdict import Verdict


def judge(completion, reference):
    here = os.environ["RUN_PROCESS"]
    while os.environ["RUN_HANGS"] == here and Path(os.environ["RUN_HANGS_FROM"]).exists():
        time.sleep(1)
    return Verdict(verify(completion, reference).score, reason=f"process {here}")
