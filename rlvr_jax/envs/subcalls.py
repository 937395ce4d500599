"""Calls of the policy by itself: a turn may ask questions, each of which is answered by an episode of its own.

A turn with `<ask>…</ask>` behind its thoughts is answered by an observation with the answers, in order. The questions
of a turn are played in parallel, each in a context window of its own; all of them share the reward of the episode.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlvr_jax import named
from rlvr_jax.envs.env import Action, Ask, Env, Say, ToolResult, single_turn
from rlvr_jax.envs.wrapping import filled, passed_on, text_of, went_on, with_parts
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

    def start(example: Example) -> tuple[_State, str | Messages]:
        state, problem = inner.start(example)
        return _State(state, text_of(problem), example.reference), problem

    def told(answers: Sequence[str]) -> Say:
        return Say("".join(observation.replace("{}", answer) for answer in answers))

    def step(state: _State, text: str) -> tuple[_State, Action]:
        asked = [found.strip() for found in between(after_thinking(text) or "", *marks)]
        if not asked:
            return went_on(inner, state, inner.step(state.inner, text))
        if len(asked) > most or not all(asked):
            many = f"{len(asked)} questions, and {most} can be asked at once"
            why = many if len(asked) > most else "a question is empty"
            return replace(state, refused=state.refused + len(asked)), told([failure.replace("{}", why)])
        state = replace(state, questions=tuple(asked), asks=state.asks + len(asked))
        return state, Ask(tuple(filled(prompt, {"{}": found, "{problem}": state.problem}) for found in asked))

    def receive(state: _State, results: tuple[ToolResult, ...]) -> tuple[_State, Action]:
        if not state.questions:
            return went_on(inner, state, inner.receive(state.inner, results))
        answers = [failure.replace("{}", x.error) if x.error is not None else x.value for x in results]
        failed = sum(x.error is not None for x in results)
        return replace(state, questions=(), failed=state.failed + failed), told(answers)

    def parts_of(state: _State) -> dict[str, float]:
        own = dict(zip(PARTS, map(float, (state.asks, state.failed, state.refused)), strict=True))
        return with_parts(inner, state, own)

    def credit_of(state: _State, results: tuple[ToolResult, ...]) -> list[float]:
        answered = zip(state.questions, results, strict=True)
        return [0.0 if x.error is not None else float(judge(q, x.value, state.reference)) for q, x in answered]

    judge = named.load(credit) if credit else None
    deeper = subcalls(single_turn(), most, depth - 1, marks, prompt, observation, failure) if depth > 1 else None
    fields = passed_on(inner) | {
        "parts": (*inner.parts, *PARTS),
        "parts_of": parts_of,
        "one_turn": False,
        "one_sequence": False,
        "inner": deeper,
        "asked": policy or inner.asked,
        "credit": credit_of if credit else None,
    }
    cut = inner.cut and (lambda state, text: went_on(inner, state, inner.cut(state.inner, text)))
    full = inner.full and (lambda state, said: went_on(inner, state, inner.full(state.inner, said)))
    return Env(start, step, receive, **fields, cut=cut, full=full)
