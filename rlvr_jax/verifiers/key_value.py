"""Questions over a key-value world (`rlvr_jax.tasks.key_value`): the last turn must be `#` and the right key."""

from collections.abc import Mapping
from typing import Any

from rlvr_jax.verifiers.verdict import Verdict


def verify(completion: str, reference: Mapping[str, Any]) -> Verdict:
    """Scores 1 if the last line of the completion, the last turn of an episode, is `#` and `reference["answer"]`.

    Part: `answered` (the last turn begins with `#`).

    Raises:
      ValueError: the reference has no answer.
    """
    if not (isinstance(reference, Mapping) and isinstance(reference.get("answer"), str)):
        raise ValueError(f'the reference of a key_value example is {{"world", "answer"}}, not {reference!r:.100}')
    last = completion.split("\n")[-1]
    if not last.startswith("#"):
        return Verdict(0.0, {"answered": 0.0}, reason="the last turn does not begin with #")
    answer = last[1:]
    right = answer == reference["answer"]
    reason = "right" if right else f"{answer:.20} is not {reference['answer']}"
    return Verdict(float(right), {"answered": 1.0}, answer, reason)
