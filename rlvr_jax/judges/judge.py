"""A judge: a function from samples to verdicts, by one score or item by item; and one from pairs to preferences.

What fails (no answer, an answer of another form) is the `error` of its own verdict, and nothing else's.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from rlvr_jax.judges import prompts
from rlvr_jax.judges.asking import Ask
from rlvr_jax.judges.prompts import NoScoreError, question
from rlvr_jax.judges.rubrics import Items, read_rubric, rubric_of
from rlvr_jax.text.tags import after_thinking
from rlvr_jax.verifiers import failure
from rlvr_jax.verifiers.judge import JudgeConfig
from rlvr_jax.verifiers.verdict import Verdict


@dataclass(frozen=True)
class Sample:
    """A response to be judged.

    Attributes:
      problem: text, or messages.
      response: of the policy; what it says after its thoughts is judged.
      reference: the gold answer or other data of the problem; None for none.
      gold: the gold answer for readers, if the reference does not show it.
    """

    problem: Any
    response: str
    reference: Any = None
    gold: str = ""

    @property
    def answer(self) -> Any:
        """The reference answer that a judge is shown."""
        return self.gold or self.reference


Judge = Callable[[Sequence[Sample]], list[Verdict]]


@dataclass(frozen=True)
class Pair:
    """Two responses to one problem."""

    problem: Any
    first: str
    second: str
    reference: Any = None


Comparer = Callable[[Sequence[Pair]], Float[np.ndarray, "pairs 2"]]


def make_judge(config: JudgeConfig, ask: Ask, name: str = "judge") -> Judge:
    """The judge of a config, whose model is `ask`.

    A sample that ends in an open thought has score 0 and is not asked about, as with verifiers.

    Raises:
      ConfigError: the rubric's file can't be read.
    """
    of_file = read_rubric(config.rubric, name) if config.rubric not in ("", "reference", "generated") else None
    asked = _scored if not config.rubric else lambda c, a, s: _graded(c, a, s, of_file)

    def judge(samples: Sequence[Sample]) -> list[Verdict]:
        said = [after_thinking(sample.response) for sample in samples]
        open_ended = Verdict(0.0, reason="no answer: the thought has no end")
        heard = [dataclasses.replace(x, response=y) for x, y in zip(samples, said, strict=True) if y is not None]
        found = iter(asked(config, ask, heard))
        return [open_ended if text is None else next(found) for text in said]

    return judge


def _scored(config: JudgeConfig, ask: Ask, samples: Sequence[Sample]) -> list[Verdict]:
    """The verdicts by one score for each sample."""
    scale = {"lowest": config.lowest, "highest": config.highest}
    template = f"{config.template}\n\n{prompts.SCORE}"
    chats = [
        question(template, config.system, scale, problem=x.problem, response=x.response, reference=x.answer)
        for x in samples
    ]
    verdicts = []
    for answer in ask(chats):
        try:
            verdicts.append(Verdict(prompts.score_of(_text(answer), **scale), reason=_short(answer.text)))
        except NoScoreError as error:
            verdicts.append(failure(str(error)))
    return verdicts


def _graded(config: JudgeConfig, ask: Ask, samples: Sequence[Sample], of_file: Items | None) -> list[Verdict]:
    """The verdicts by the items of rubrics, each of which is asked about by itself."""
    rubrics = _rubrics(config, ask, samples, of_file)
    chats = [
        question(prompts.ITEM, config.system, problem=x.problem, response=x.response, criterion=statement)
        for x, items in zip(samples, rubrics, strict=True)
        if not isinstance(items, str)
        for statement, _ in items
    ]
    answers = iter(ask(chats))
    verdicts = []
    for sample, items in zip(samples, rubrics, strict=True):
        if isinstance(items, str):
            verdicts.append(failure(items))
            continue
        graded: list[tuple[bool, str]] = []
        errors = []
        for statement, _ in items:
            try:
                graded.append(prompts.met_of(_text(next(answers))))
            except NoScoreError as error:
                errors.append(f"item {statement!r:.60}: {error}")
        verdicts.append(failure(errors[0]) if errors else _weighted(sample, items, graded))
    return verdicts


def _weighted(sample: Sample, items: Items, graded: Sequence[tuple[bool, str]]) -> Verdict:
    """The share of the weights above 0 that the met items have, those below 0 subtracted, not below 0.

    Source: Arora et al. 2025 (HealthBench, arXiv:2505.08775), section 3.

    The part "evidence" is the share of met items whose evidence stands in the response, white space apart.
    """
    total = sum(weight for _, weight in items if weight > 0)
    earned = sum(weight for (_, weight), (met, _) in zip(items, graded, strict=True) if met)
    said = " ".join(sample.response.split())
    quotes = [" ".join(evidence.strip("\"'`").split()) for met, evidence in graded if met]
    shown = [bool(quote) and quote in said for quote in quotes]
    lines = [
        f"{'yes' if met else 'no'} [{weight:g}] {statement} ({evidence})"
        for (statement, weight), (met, evidence) in zip(items, graded, strict=True)
    ]
    parts = {"evidence": sum(shown) / len(shown)} if shown else {}
    return Verdict(min(1.0, max(0.0, earned / total)), parts, reason=_short("; ".join(lines), 1000))


def _rubrics(config: JudgeConfig, ask: Ask, samples: Sequence[Sample], of_file: Items | None) -> list[Items | str]:
    """The rubric of each sample, or why it has none."""
    if of_file is not None:
        return [of_file] * len(samples)
    if config.rubric == "reference":
        return [_attempt(lambda x=x: rubric_of(x.reference)) for x in samples]
    chats = [question(prompts.WRITE, config.system, problem=x.problem, reference=x.answer) for x in samples]
    return [_attempt(lambda x=x: prompts.items_of(_text(x))) for x in ask(chats)]


def _attempt(function: Callable[[], Items]) -> Items | str:
    try:
        return function()
    except NoScoreError as error:
        return str(error)


def make_comparer(config: JudgeConfig, ask: Ask) -> Comparer:
    """The judge as a function of pairs.

    Each pair is asked about twice, in both orders. The two columns of the result are the preference for the response
    `first` when it is shown first, and when it is shown second: 1, 0, 0.5 for a tie, NaN without an answer. The
    preference that does not depend on the order is the mean of both (Zheng et al. 2023, arXiv:2306.05685, section 3.4).
    """

    def compare(pairs: Sequence[Pair]) -> Float[np.ndarray, "pairs 2"]:
        chats = []
        for pair in pairs:
            texts = [after_thinking(text) or "" for text in (pair.first, pair.second)]
            for first, second in (texts, texts[::-1]):
                shown = {"problem": pair.problem, "reference": pair.reference, "first": first, "second": second}
                chats.append(question(prompts.PAIR, config.system, **shown))
        found = np.array([_preference(answer) for answer in ask(chats)], np.float64).reshape(-1, 2)
        return np.stack([found[:, 0], 1 - found[:, 1]], axis=1)

    return compare


def _preference(answer: Any) -> float:
    try:
        return prompts.preference_of(_text(answer))
    except NoScoreError:
        return math.nan


def _text(answer: Any) -> str:
    """The text of an answer. Raises NoScoreError without one."""
    if answer.error is not None:
        raise NoScoreError(answer.error)
    return answer.text


def _short(text: str, most: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else "…" + text[-most:]
