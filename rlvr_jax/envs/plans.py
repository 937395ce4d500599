"""Plans and thoughts before an answer: their tokens as parts for rewards, and budgets that the environment enforces.

A turn may have a plan between `<plan>` and `</plan>`, a thought between `<think>` and `</think>`, and the rest, its
answer, calls of tools included. Plans are not judged, and no call in a plan is executed.

A plan or thought that has used up its budget is closed: the environment writes the closing mark into the turn, which
goes on behind it. These tokens are not the policy's and are not trained on.

Source: budget forcing, Muennighoff et al. 2025 (s1, arXiv:2501.19393), section 3.1, there at inference only.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rlvr_jax.envs.env import Action, Done, Env, Force, ToolResult
from rlvr_jax.envs.wrapping import passed_on, went_on, with_parts
from rlvr_jax.tasks.task import Example
from rlvr_jax.text.messages import Messages
from rlvr_jax.text.tags import END_THINK, THINK

KINDS = ("plan", "thinking", "answer")
PARTS = (*(f"{kind}_tokens" for kind in KINDS), *(f"{kind}_over" for kind in KINDS), "planned", "forced")
MARKS = {"plan": ("<plan>", "</plan>"), "thinking": (THINK, END_THINK)}


@dataclass(frozen=True)
class _State:
    """The state of an episode.

    Attributes:
      inner: that of the environment within.
      kind: of what is open at the end of the unfinished turn.
      tail: its last characters, which a mark that goes on may still divide otherwise; `kind` holds from its start.
      pending: (place in the tail, sampled) of each token that begins there.
      counted: by kind, the policy's tokens before.
      closed: kinds whose closing mark is in the unfinished turn.
      spent: its last tokens were as many as `budget` had allowed.
      tokens: by kind, of the finished turns.
      planned: whether a turn had a plan.
      forced: closings.
      turns: that are finished.
    """

    inner: Any
    kind: str
    tail: str = ""
    pending: tuple[tuple[int, bool], ...] = ()
    counted: tuple[int, ...] = (0,) * len(KINDS)
    closed: frozenset[str] = frozenset()
    spent: bool = False
    tokens: tuple[int, ...] = (0,) * len(KINDS)
    planned: bool = False
    forced: int = 0
    turns: int = 0


@dataclass(frozen=True)
class _Rules:
    """The environment within, and the options of `plans`: budgets by kind, marks, and whether budgets are kept."""

    inner: Env
    budgets: tuple[int, int, int]
    marks: Mapping[str, Sequence[str]]
    opened: str
    limited: bool

    def without_plans(self, text: str) -> str:
        """The text of a turn without its plans."""
        return without_plans(text, self.marks, self.opened)


def plans(
    inner: Env,
    plan: int = 0,
    thinking: int = 0,
    answer: int = 0,
    force: bool = True,
    opened: str = "",
    marks: Mapping[str, Sequence[str]] | None = None,
) -> Env:
    """The environment `inner` with plans, thoughts and answers told apart.

    Parts for rewards, besides those of `inner`, over all turns of an episode: `plan_tokens`, `thinking_tokens` and
    `answer_tokens`, marks included, without stop tokens and forced ones; `plan_over`, `thinking_over` and
    `answer_over`, those of them beyond the budgets; `planned`, 1 with a plan; `forced`, the number of closings.

    Args:
      inner: of the episodes.
      plan, thinking, answer: budgets, in tokens of a turn; 0 for none.
      force: False to let the policy exceed them.
      opened: "thinking" or "plan" if the prompt has opened it.
      marks: of plans and thoughts, in the place of `<plan>` and `<think>`.

    Raises:
      ValueError: an option can't be used.
    """
    budgets = (plan, thinking, answer)
    marked = MARKS | {name: tuple(pair) for name, pair in (marks or {}).items()}
    if marked.keys() != MARKS.keys() or not all(len(pair) == 2 and all(pair) for pair in marked.values()):
        raise ValueError(f"marks must be pairs of texts for {' and '.join(MARKS)}, not {marks}")
    for name, (opening, closing) in marked.items():
        if opening == closing:
            raise ValueError(f"marks: {name} opens and closes with {opening!r}; its marks must be different")
        if any(pair[0].startswith(opening) for other, pair in marked.items() if other != name):
            raise ValueError(f"marks: another kind opens with {opening!r} of {name}, too; they can't be told apart")
    if min(budgets) < 0:
        raise ValueError(f"plan, thinking and answer must be 0 or more, not {', '.join(map(str, budgets))}")
    if opened not in ("", *MARKS):
        raise ValueError(f"opened must be empty or one of {', '.join(MARKS)}, not {opened!r}")
    rules = _Rules(inner, budgets, marked, opened, force and any(budgets))

    def start(example: Example) -> tuple[_State, str | Messages]:
        state, problem = inner.start(example)
        return _State(state, opened or "answer"), problem

    def step(state: _State, text: str) -> tuple[_State, Action]:
        return went_on(inner, _ended(rules, state, text), inner.step(state.inner, rules.without_plans(text)))

    def receive(state: _State, results: tuple[ToolResult, ...]) -> tuple[_State, Action]:
        return went_on(inner, state, inner.receive(state.inner, results))

    def judged(state: _State, texts: Sequence[str]) -> Sequence[str]:
        own = list(map(rules.without_plans, texts))
        return own if inner.judged is None else inner.judged(state.inner, own)

    return Env(
        start,
        step,
        inner.receive and receive,
        **passed_on(inner)
        | {
            "parts": (*inner.parts, *PARTS),
            "parts_of": partial(_parts_of, rules),
            "judged": judged,
            "read": partial(_read, rules),
            "budget": partial(_budget, rules) if rules.limited else None,
            "one_turn": inner.one_turn and not rules.limited,
        },
        cut=partial(_cut, rules) if rules.limited else None,
        full=inner.full and (lambda state, said: went_on(inner, state, inner.full(state.inner, said))),
    )


def _counts(rules: _Rules, state: _State) -> tuple[int, ...]:
    """The policy's tokens of each kind in the unfinished turn."""
    return _added(state.counted, state.pending, kinds_of(state.tail, rules.marks, state.kind))


def _appended(rules: _Rules, state: _State, texts: Sequence[str], sampled: bool) -> _State:
    """The state after more tokens of the unfinished turn, in time linear in these."""
    *places, size = itertools.accumulate(map(len, texts), initial=len(state.tail))
    pending = (*state.pending, *((place, sampled) for place in places))
    tail = state.tail + "".join(texts)
    kinds = kinds_of(tail, rules.marks, state.kind)
    # A mark that is not complete begins behind this place.
    longest = max(len(mark) for pair in rules.marks.values() for mark in pair)
    certain = max([end for _, end in kinds[:-1]] + [size - longest + 1, 0])
    return replace(
        state,
        kind=kinds[-1][0],
        tail=tail[certain:],
        pending=tuple((place - certain, own) for place, own in pending if place >= certain),
        counted=_added(state.counted, [(place, own) for place, own in pending if place < certain], kinds),
        closed=state.closed.union(name for name, (_, mark) in rules.marks.items() if mark in tail),
    )


def _read(rules: _Rules, state: _State, texts: Sequence[str]) -> _State:
    """The state after the tokens that the policy has sampled."""
    inner = rules.inner
    after = state.inner if inner.read is None else inner.read(state.inner, texts)
    spent = rules.limited and len(texts) == _budget(rules, state)
    return replace(_appended(rules, state, texts, True), inner=after, spent=spent)


def _ended(rules: _Rules, state: _State, text: str) -> _State:
    """The state after a turn."""
    return replace(
        _State(state.inner, rules.opened or "answer"),
        spent=state.spent,
        forced=state.forced,
        tokens=tuple(map(sum, zip(state.tokens, _counts(rules, state), strict=True))),
        planned=state.planned or any(kind == "plan" for kind, _ in kinds_of(text, rules.marks, rules.opened)),
        turns=state.turns + 1,
    )


def _cut(rules: _Rules, state: _State, text: str) -> tuple[_State, Action]:
    """Closes a plan or thought that has used up its budget, and ends a turn that has no budget left."""
    inner, place = rules.inner, KINDS.index(state.kind)
    within = not rules.budgets[place] or _counts(rules, state)[place] < rules.budgets[place]
    if within and state.spent:  # a smaller budget of another kind
        return state, Force()
    if within and inner.cut is not None:
        return went_on(inner, _ended(rules, state, text), inner.cut(state.inner, text))
    if within or state.kind == "answer":
        return _ended(rules, state, text), Done(reason="length")
    closing = rules.marks[state.kind][1]
    return replace(_appended(rules, state, [closing], False), forced=state.forced + 1), Force(closing)


def _budget(rules: _Rules, state: _State) -> int:
    """The number of tokens that exceed no budget whatever they are."""
    left = [
        max(1, most - used)
        for kind, most, used in zip(KINDS, rules.budgets, _counts(rules, state), strict=True)
        if most and (kind in ("answer", state.kind) or kind not in state.closed)
    ]
    given = 0 if rules.inner.budget is None else rules.inner.budget(state.inner)
    return min([*left, *[given] * bool(given)], default=0)


def _parts_of(rules: _Rules, state: _State) -> dict[str, float]:
    tokens = [sum(pair) for pair in zip(state.tokens, _counts(rules, state), strict=True)]
    turns = max(1, state.turns)
    over = [max(0, used - most * turns) if most else 0 for used, most in zip(tokens, rules.budgets, strict=True)]
    values = (*tokens, *over, state.planned, state.forced)
    return with_parts(rules.inner, state, dict(zip(PARTS, map(float, values), strict=True)))


def kinds_of(text: str, marks: Mapping[str, Sequence[str]] = MARKS, opened: str = "") -> list[tuple[str, int]]:
    """(kind, end) of the consecutive parts of a turn, in characters; the last one, which is not closed, ends at -1."""
    found, kind, at = [], opened or "answer", 0
    names = {marks[name][0]: name for name in marks}
    opening = re.compile("|".join(map(re.escape, names)))
    while True:
        if kind != "answer":
            closes = text.find(marks[kind][1], at)
            if closes < 0:
                return [*found, (kind, -1)]
            at = closes + len(marks[kind][1])
            found.append((kind, at))
            kind = "answer"
        opens = opening.search(text, at)  # for all marks at once: one that there is not is looked for once
        if opens is None:
            return [*found, (kind, -1)]
        if opens.start() > at:
            found.append((kind, opens.start()))
        at, kind = opens.start(), names[opens[0]]


def _added(
    counts: Sequence[int], tokens: Sequence[tuple[int, bool]], kinds: Sequence[tuple[str, int]]
) -> tuple[int, ...]:
    """The counts by kind, with the sampled ones among more tokens, which are in the order of their places."""
    found, part = dict(zip(KINDS, counts, strict=True)), 0
    for place, sampled in tokens:
        while 0 <= kinds[part][1] <= place:
            part += 1
        found[kinds[part][0]] += sampled
    return tuple(found.values())


def without_plans(text: str, marks: Mapping[str, Sequence[str]] = MARKS, opened: str = "") -> str:
    """The text of a turn without its plans, closed or not."""
    kept, at = [], 0
    for kind, end in kinds_of(text, marks, opened):
        end = len(text) if end < 0 else end
        kept.append(text[at:end] if kind != "plan" else "")
        at = end
    return "".join(kept)
