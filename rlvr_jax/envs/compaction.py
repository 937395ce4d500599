"""Context compaction: when the context window is full, the policy sums up its work and goes on in a new window.

The window is full when an observation would leave fewer than `reserve` tokens of it, or a turn has used up all but
these. Then the policy is asked for a summary, and the next window begins with the problem, the summary, and the
observation that had no room. All windows of an episode share its reward, so summaries are learned by what they are
good for. Verifiers do not see them, and the next window does not have their thoughts.

Source: the rollouts of Wu et al. 2025 (ReSum, arXiv:2509.13313), whose advantage of an episode is that of each of its
windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlvr_jax.envs.env import Action, CallRecord, Env, NewWindow, Say, ToolResult
from rlvr_jax.envs.wrapping import bound, filled, passed_on, pieces, text_of, went_on, with_parts, with_text
from rlvr_jax.tasks.task import Example
from rlvr_jax.text.messages import Messages
from rlvr_jax.text.tags import after_thinking

PARTS = ("windows", "empty_summaries", "cut_summaries")
_ASK = "\nThe context is full. Write a summary of all that you need to go on; you will see nothing else of your work.\n"
_PROMPT = "{problem}\n\nYour summary of the work so far:\n{summary}\n{observation}"
_PLACES = ("{problem}", "{summary}", "{observation}")
_AROUND = 32  # tokens that a chat template may write around `ask`


@dataclass(frozen=True)
class _State:
    """The state of an episode.

    Attributes:
      inner: that of the environment within.
      problem: its prompt.
      asked: for a summary.
      pending: the observation that had no room.
      turn: number of the policy's next turn, summaries included.
      numbers: of the turns that the environment within has had.
      unjudged: numbers of summaries, and of turns that were cut off before one.
      windows, empty, cut: counts of windows, and of summaries that are empty or were cut off.
    """

    inner: Any
    problem: str | Messages
    asked: bool = False
    pending: str = ""
    turn: int = 0
    numbers: tuple[int, ...] = ()
    unjudged: tuple[int, ...] = ()
    windows: int = 1
    empty: int = 0
    cut: int = 0


@dataclass(frozen=True)
class _Rules:
    """The environment within, and the options of `compaction`."""

    inner: Env
    summary_tokens: int
    ask: str
    prompt: str
    summaries: bool


def compaction(
    inner: Env,
    summary_tokens: int = 256,
    reserve: int = 0,
    ask: str = _ASK,
    prompt: str = _PROMPT,
    summaries: bool = True,
) -> Env:
    """The environment `inner` in several context windows.

    Parts for rewards, besides those of `inner`: `windows`, `empty_summaries` and `cut_summaries`, those that were
    longer than `summary_tokens`.

    Args:
      inner: of the episodes.
      summary_tokens: maximum tokens of a summary; a longer one is cut off.
      reserve: tokens of a window that are left to `ask` and the summary; 0 for as many as they may take.
      ask: the observation that asks for a summary.
      prompt: of the next window, with the places {problem}, {summary} and {observation}.
      summaries: False to truncate instead: the next window begins with the problem and the observation alone.

    Raises:
      ValueError: an option can't be used.
    """
    for name, value, least in (("summary_tokens", summary_tokens, 1), ("reserve", reserve, 0)):
        if value < least:
            raise ValueError(f"{name} must be {least} or more, not {value}")
    if lacking := [place for place in ("{problem}", "{summary}") if place not in prompt]:
        raise ValueError(f"prompt lacks the place {lacking[0]}")
    if inner.cut is not None or inner.full is not None:
        raise ValueError("the environment within handles full windows or budgets itself; put `plans` around compaction")
    if not ask:
        raise ValueError("ask is empty: the policy would not know that a summary is wanted")
    rules = _Rules(inner, summary_tokens, ask, prompt, summaries)
    words = "".join(piece for piece in pieces(prompt, _PLACES) if piece not in _PLACES)
    functions = {
        "start": _start, "step": _step, "parts_of": _parts_of, "judged": _judged, "budget": _budget, "cut": _cut,
        "full": _full, "calls_of": inner.calls_of and _calls_of, "read": inner.read and _read,
        "receive": inner.receive and _receive,
    }  # fmt: skip
    fields = passed_on(inner) | bound(rules, functions)
    return Env(
        **fields
        | {
            "parts": (*inner.parts, *PARTS),
            "says": (*inner.says, ask),
            "one_turn": False,
            "one_sequence": False,
            "reserve": reserve or (summary_tokens + len(ask.encode()) + _AROUND if summaries else 1),
            "added": len(words.encode()) + summary_tokens,
        },
    )


def _start(rules: _Rules, example: Example) -> tuple[_State, str | Messages]:
    state, problem = rules.inner.start(example)
    return _State(state, problem), problem


def _step(rules: _Rules, state: _State, text: str) -> tuple[_State, Action]:
    if state.asked:
        return _next_window(rules, state, text)
    state = replace(state, turn=state.turn + 1, numbers=(*state.numbers, state.turn))
    return went_on(rules.inner, state, rules.inner.step(state.inner, text))


def _receive(rules: _Rules, state: _State, results: tuple[ToolResult, ...]) -> tuple[_State, Action]:
    return went_on(rules.inner, state, rules.inner.receive(state.inner, results))


def _read(rules: _Rules, state: _State, texts: Sequence[str]) -> _State:
    return state if state.asked else replace(state, inner=rules.inner.read(state.inner, texts))


def _full(rules: _Rules, state: _State, observation: Say) -> tuple[_State, Action]:
    """Goes on in a new window, with the observation that has no room."""
    said = observation.observation
    pending = said if isinstance(said, str) else "\n".join(message["content"] for message in said)
    return _leave_window(rules, replace(state, pending=pending))


def _cut(rules: _Rules, state: _State, text: str) -> tuple[_State, Action]:
    """Goes on in a new window, after a turn that has used up this one, or after a summary that is too long."""
    if state.asked:
        return _next_window(rules, replace(state, cut=state.cut + 1), text)
    return _leave_window(rules, _without_turn(state))


def _leave_window(rules: _Rules, state: _State) -> tuple[_State, Action]:
    """Asks for a summary, if there are any."""
    return (replace(state, asked=True), Say(rules.ask)) if rules.summaries else _next_window(rules, state, "")


def _next_window(rules: _Rules, state: _State, summary: str) -> tuple[_State, Action]:
    summary = (after_thinking(summary) or "").strip()
    text = filled(rules.prompt, dict(zip(_PLACES, (text_of(state.problem), summary, state.pending), strict=True)))
    after = replace(
        _without_turn(state) if state.asked else state, asked=False, pending="", windows=state.windows + 1,
        empty=state.empty + (rules.summaries and not summary),
    )  # fmt: skip
    return after, NewWindow(with_text(state.problem, text))


def _without_turn(state: _State) -> _State:
    """The state after a turn that is not judged."""
    return replace(state, turn=state.turn + 1, unjudged=(*state.unjudged, state.turn))


def _parts_of(rules: _Rules, state: _State) -> dict[str, float]:
    own = dict(zip(PARTS, map(float, (state.windows, state.empty, state.cut)), strict=True))
    return with_parts(rules.inner, state, own)


def _calls_of(rules: _Rules, state: _State) -> tuple[CallRecord, ...]:
    return tuple(replace(call, turn=state.numbers[call.turn]) for call in rules.inner.calls_of(state.inner))


def _judged(rules: _Rules, state: _State, texts: Sequence[str]) -> Sequence[str]:
    own = [text for number, text in enumerate(texts) if number not in state.unjudged]
    return own if rules.inner.judged is None else rules.inner.judged(state.inner, own)


def _budget(rules: _Rules, state: _State) -> int:
    if state.asked:
        return rules.summary_tokens
    return 0 if rules.inner.budget is None else rules.inner.budget(state.inner)
