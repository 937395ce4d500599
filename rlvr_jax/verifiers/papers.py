"""Sets of ids, such as those of papers: the answer in `<answer> </answer>`, separated by commas or white space."""

import re
from collections.abc import Mapping
from typing import Any

from rlvr_jax.text.tags import answer_in_tags
from rlvr_jax.verifiers.verdict import Verdict

_MAX_LENGTH = 4000  # characters of an answer


def verify(completion: str, reference: Mapping[str, Any]) -> Verdict:
    """Scores the F1 of the ids of the last answer: 2 * precision * recall / (precision + recall).

    Parts: `precision`, the share of the answer's ids that are right; `recall`, the share of the right ids that are in
    it; `answered`, whether there is an answer. An id counts once, however often it is given.

    Raises:
      ValueError: the reference is not `{"papers": [id, …]}` with at least one id.
    """
    right = set(_ids_of(reference))
    answer = answer_in_tags(completion)
    if answer is None:
        parts = {"precision": 0.0, "recall": 0.0, "answered": 0.0}
        return Verdict(0.0, parts, reason="no <answer> </answer>")
    given = set(re.split(r"[\s,;]+", answer[:_MAX_LENGTH])) - {""}
    found = len(given & right)
    precision, recall = found / max(len(given), 1), found / len(right)
    parts = {"precision": precision, "recall": recall, "answered": 1.0}
    reason = f"{found} of {len(right)} right ids, {len(given) - found} wrong ones"
    return Verdict(2 * found / (len(given) + len(right)), parts, answer[:_MAX_LENGTH], reason)


def _ids_of(reference: Any) -> list[str]:
    ids = reference.get("papers") if isinstance(reference, Mapping) else None
    if not isinstance(ids, list | tuple) or not ids or not all(isinstance(id, str) and id for id in ids):
        raise ValueError(f'the reference of a papers example is {{"papers": [id, …]}}, not {reference!r:.100}')
    return list(ids)
