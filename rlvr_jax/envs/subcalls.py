"""Recursive self-calls: a turn may ask questions, each of which is answered by an episode of its own.

A turn with `<ask>…</ask>` behind its thoughts is answered by an observation with the answers, in order. The questions
of a turn are played in parallel, each in a context window of its own; all of them share the reward of the episode.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlvr_jax import named
from rlvr_jax.envs.env import Action, Ask, Env, Say, ToolResult, single_turn
from rlvr_jax.envs.wrapping import bound, filled, passed_on, text_of, went_on, with_parts
from rlvr_jax.tasks.task import Example
from rlvr_jax.text.messages import Messages
from rlvr_jax.text.tags import after_thinking, between

PARTS = ("asks", "failed_asks", "refused_asks")
MARKS = ("<ask>", "</ask>")
MOST_DEPTH = 20


@dataclass(frozen=True)
class _State:
    """The state of an episode.

    Attributes:
      inner: that of the environment within.
      problem: the text of the prompt.
      reference: the gold answer.
      questions: that are being answered.
      asks, failed, refused: counts of questions: played, those of them without an answer, and not played.
    """

    inner: Any
    problem: str
    reference: Any
    questions: tuple[str, ...] = ()
    asks: int = 0
    failed: int = 0
    refused: int = 0


@dataclass(frozen=True)
class _Rules:
    """The environment within, the options of `subcalls`, and the function that rewards answers, if there is any."""

    inner: Env
    most: int
    marks: Sequence[str]
    prompt: str
    observation: str
    failure: str
    judge: Callable[[str, str, Any], float] | None


def subcalls(
    inner: Env,
    most: int = 4,
    depth: int = 1,
    marks: Sequence[str] = MARKS,
    prompt: str = "{}",
    observation: str = "{}\n",
    failure: str = "Error: {}",
    credit: str = "",
    policy: str = "",
) -> Env:
    """The environment `inner` for a policy that may ask itself.

    Parts for rewards, besides those of `inner`: `asks`; `failed_asks`, those of them that a limit ended;
    `refused_asks`, those that were not played since a turn had more than `most`, or since they are empty.

    Args:
      inner: of the episodes.
      most: questions of a turn; with more, none is played.
      depth: 1 if an episode that answers a question may ask none itself, and one more for each level that may, at most
        `MOST_DEPTH`.
      marks: around a question.
      prompt: of a question, with the place {}, and if you like {problem} for the problem of the episode.
      observation: for each answer, with the place {}.
      failure: the answer where there is none, with the place {} for the reason.
      credit: `module:function` or `file.py:function` of (question, answer, gold answer of the problem), which returns
        the reward of an episode that answers a question, 0 for one without an answer; empty to share the reward of the
        episode.
      policy: that answers, the workdir of a run or a checkpoint; it is not trained. Empty for the policy itself.

    Raises:
      ValueError: an option can't be used.
    """
    if most < 1 or depth < 1:
        raise ValueError(f"most and depth must be 1 or more, not {most} and {depth}")
    if depth > MOST_DEPTH:
        raise ValueError(f"depth must be at most {MOST_DEPTH}, not {depth}")
    if credit and policy:
        raise ValueError(f"credit = {credit!r} is for answers that are trained on, and those of {policy!r} are not")
    if len(marks) != 2 or not all(marks) or marks[0] == marks[1]:
        raise ValueError(f"marks must be two different texts, not {marks!r}")
    for name, text in (("prompt", prompt), ("observation", observation)):
        if "{}" not in text:
            raise ValueError(f"{name} lacks the place {{}}")

    rules = _Rules(inner, most, marks, prompt, observation, failure, named.load(credit) if credit else None)
    deeper = subcalls(single_turn(), most, depth - 1, marks, prompt, observation, failure) if depth > 1 else None
    functions = {
        "start": _start, "step": _step, "receive": _receive, "parts_of": _parts_of, "credit": rules.judge and _credit,
        "cut": inner.cut and _cut, "full": inner.full and _full,
    }  # fmt: skip
    fields = passed_on(inner) | bound(rules, functions)
    return Env(
        **fields
        | {
            "parts": (*inner.parts, *PARTS),
            "one_turn": False,
            "one_sequence": False,
            "inner": deeper,
            "asked": policy or inner.asked,
        },
    )


def _start(rules: _Rules, example: Example) -> tuple[_State, str | Messages]:
    state, problem = rules.inner.start(example)
    return _State(state, text_of(problem), example.reference), problem


def _step(rules: _Rules, state: _State, text: str) -> tuple[_State, Action]:
    """Asks the questions of a turn; one without any is a turn of the environment within."""
    asked = [found.strip() for found in between(after_thinking(text) or "", *rules.marks)]
    if not asked:
        return went_on(rules.inner, state, rules.inner.step(state.inner, text))
    if len(asked) > rules.most or not all(asked):
        many = f"{len(asked)} questions, and {rules.most} can be asked at once"
        why = many if len(asked) > rules.most else "a question is empty"
        refused = replace(state, refused=state.refused + len(asked))
        return refused, _told(rules, [rules.failure.replace("{}", why)])
    state = replace(state, questions=tuple(asked), asks=state.asks + len(asked))
    return state, Ask(tuple(filled(rules.prompt, {"{}": found, "{problem}": state.problem}) for found in asked))


def _receive(rules: _Rules, state: _State, results: tuple[ToolResult, ...]) -> tuple[_State, Action]:
    """Tells the answers; results without a question before them are those of the environment within."""
    if not state.questions:
        return went_on(rules.inner, state, rules.inner.receive(state.inner, results))
    answers = [rules.failure.replace("{}", x.error) if x.error is not None else x.value for x in results]
    failed = sum(x.error is not None for x in results)
    return replace(state, questions=(), failed=state.failed + failed), _told(rules, answers)


def _told(rules: _Rules, answers: Sequence[str]) -> Say:
    return Say("".join(rules.observation.replace("{}", answer) for answer in answers))


def _cut(rules: _Rules, state: _State, text: str) -> tuple[_State, Action]:
    return went_on(rules.inner, state, rules.inner.cut(state.inner, text))


def _full(rules: _Rules, state: _State, observation: Say) -> tuple[_State, Action]:
    return went_on(rules.inner, state, rules.inner.full(state.inner, observation))


def _parts_of(rules: _Rules, state: _State) -> dict[str, float]:
    own = dict(zip(PARTS, map(float, (state.asks, state.failed, state.refused)), strict=True))
    return with_parts(rules.inner, state, own)


def _credit(rules: _Rules, state: _State, results: tuple[ToolResult, ...]) -> list[float]:
    answered = zip(state.questions, results, strict=True)
    return [0.0 if x.error is not None else float(rules.judge(q, x.value, state.reference)) for q, x in answered]
