"""Verifiers for the tests of the loop; worker processes import this module by name."""

import os
import signal
import time

from rlvr_jax.verifiers.verdict import Verdict


def right_or_failing(completion, reference, failure):
    """Every completion is right, unless the verifier raises, hangs or dies over it."""
    if failure == "raise":
        raise KeyError("what a pity")
    if failure == "hang":
        time.sleep(3600)
    if failure == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return Verdict(1.0, answer=completion, reason=f"anything goes for {reference}")
