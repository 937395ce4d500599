"""A module whose import takes longer than the time that the tests give to one item."""

import time

from rlvr_jax.verifiers.verdict import Verdict

time.sleep(1.5)


def verify(completion, reference):  # noqa: ARG001
    return Verdict(1.0)
