"""A verifier and a tool that say in which process of a run they are, and hang in one of them once a file is there."""

import os
import time
from pathlib import Path

from rlvr_jax.envs import Call, Done, Env, Say, ToolCall
from rlvr_jax.verifiers.modsum import verify
from rlvr_jax.verifiers.verdict import Verdict


def where():
    here = os.environ["RUN_PROCESS"]
    while os.environ["RUN_HANGS"] == here and Path(os.environ["RUN_HANGS_FROM"]).exists():
        time.sleep(1)
    return here


def judge(completion, reference):
    return Verdict(verify(completion, reference).score, reason=f"process {where()}")


def anywhere():
    return "7"


def asking(tool="where"):
    """An environment of two turns that end with a digit; between them what the tool says, or a + if it failed."""
    call = Call((ToolCall(f"{__file__}:{tool}"),))
    step = lambda state, _: (1, call) if state == 0 else (state, Done())  # noqa: E731
    receive = lambda state, results: (state, Say(results[0].value or "+"))  # noqa: E731
    return Env(lambda example: (0, example.prompt), step, receive, ends=tuple("0123456789"))
