"""The environment of a policy with tools: turns with calls are answered by observations, and one without is the answer.

Every call that goes wrong is an observation that says why: a mistake in the call itself, a tool that does not exist,
arguments that do not fit, a function that raises, hangs or floods. None of these costs more than the turn, and each is
counted by name (`CallRecord.outcome`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from typing import Any, Literal, get_args

import numpy as np

from rlvr_jax import named
from rlvr_jax.envs.env import Action, Call, CallRecord, Done, Env, Say, Shorten, ToolResult
from rlvr_jax.tasks.task import draw, uniform
from rlvr_jax.text.prompts import Tools
from rlvr_jax.tools import Result, Tool, job_of, make_format, make_tools, result_of, shown
from rlvr_jax.tools.call import Format, ParsedCall
from rlvr_jax.tools.schema import converted, nesting, wrong

PARTS = ("tool_calls", "tool_errors", "malformed_calls")
UNRELIABLE = "unreliable"  # the outcome of a call that was made to fail
UNENCODED = "unencoded"  # that of an output that the tokenizer can't encode, or that has no tokens
# Outcomes of calls that could not be read or made.
MISTAKES = {
    *("unclosed", "unopened", "not_json", "syntax", "duplicate_key", "wrong_fields"),
    *("unknown_tool", "wrong_arguments", "several"),
}
_MOST_LEVELS = 64  # of arguments, which are checked and written by functions that call themselves
_MOST_OF_ERROR = 300  # characters that are kept of why a call failed
_NO_TOKENS = "the output can not be shown"
Shows = Literal["error", "garbage"]
_ENDED_BY_LIMITS = ("timed_out", "out_of_memory", "died", "flood")  # such calls are not repeated for their state


@dataclass(frozen=True)
class Reliability:
    """A tool that fails on purpose.

    Attributes:
      works: the probability that a call is executed as it should; or pairs (training steps, probability), between which
        it changes linearly, to bring a tool in late, or to repair it.
      shows: what the policy gets otherwise: an "error"; or "garbage", the output with other digits and letters.
    """

    works: float | Sequence[Sequence[float]]
    shows: Shows = "error"

    def __post_init__(self) -> None:
        if not (all(len(pair) == 2 and 0 <= pair[1] <= 1 for pair in self.points) and self.points):
            raise ValueError(f"reliability: works must be from 0 to 1, or pairs (steps, from 0 to 1), not {self.works}")
        steps = [pair[0] for pair in self.points]
        if steps != sorted(set(steps)):
            raise ValueError(f"reliability: the steps of works must rise, not {steps}")
        if self.shows not in get_args(Shows):
            raise ValueError(f"reliability: shows must be one of {', '.join(get_args(Shows))}, not {self.shows!r}")

    @property
    def points(self) -> tuple[Sequence[float], ...]:
        """(training steps, probability)."""
        return ((0, self.works),) if isinstance(self.works, int | float) else tuple(self.works)

    def after(self, steps: int) -> float:
        """The probability after so many training steps."""
        return float(np.interp(steps, *zip(*self.points, strict=True)))


@dataclass(frozen=True)
class _State:
    """The state of an episode.

    Attributes:
      id: of its example, and of the sample.
      turn: number of the policy's last turn.
      steps: of training that the policy of this turn has had.
      calls: so far.
      earlier: by tool, the arguments of the calls that are repeated for its state.
      asked: the calls of the turn while their tools run, with the results of those that are not executed.
    """

    id: str
    turn: int = -1
    steps: int = 0
    calls: tuple[CallRecord, ...] = ()
    earlier: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    asked: tuple[tuple[ParsedCall, Result | None], ...] = ()


@dataclass(frozen=True)
class _Rules:
    """The tools of an environment, by name, the format of their calls, and the options of `tool_use`; and what cuts
    outputs to the tokens of their tools."""

    tools: Mapping[str, Tool]
    form: Format
    max_calls: int
    max_seconds: float
    calls_in_a_turn: int
    failure: str
    unjudged: tuple[str, ...]
    unreliable: Mapping[str, Reliability]
    shorten: Shorten = lambda text, _: text

    def failed(self, why: str) -> str:
        """The text for the policy after a call without an output."""
        return self.failure.replace("{}", why)


def tool_use(
    tools: Sequence[str] | Mapping[str, Mapping[str, Any]],
    format: str = "tags",
    format_options: Mapping[str, Any] | None = None,
    instructions: str | None = None,
    max_calls: int = 0,
    max_seconds: float = 0.0,
    calls_in_a_turn: int = 1,
    failure: str = "Error: {}",
    unjudged: Sequence[str] = (),
    reliability: Mapping[str, Mapping[str, Any]] | None = None,
) -> Env:
    """An environment in which the policy may call tools.

    Parts for rewards: `tool_calls` (those that were executed, whatever came of it), `tool_errors` (those of them
    without an output), `malformed_calls` (not executed, because of a mistake in them), and `<tool>_calls` of each.

    Args:
      tools: see `rlvr_jax.tools.make_tools`.
      format: of calls, see `rlvr_jax.tools.formats`.
      format_options: of its function.
      instructions: in front of each problem, with the place {tools} for the format's own; empty for none; None for
        those alone. Not used where the chat template describes tools in this format itself.
      max_calls: executed calls in an episode, which one more ends (finish reason "calls"); 0 for no limit.
      max_seconds: time that tools may take in an episode, which ends after it (finish reason "tool_seconds"); 0 for no
        limit. It is the only limit that depends on the clock.
      calls_in_a_turn: with more, none is executed.
      failure: text with the place {} for the reason, or without, for the policy after a call without an output.
      unjudged: outcomes of calls, such as "timed_out", that end an episode without a judgement (finish reason
        "tool_error"): it is left out of its group, since what has failed is not the policy.
      reliability: by tool, a `Reliability`. Whether the n-th call of an episode works is drawn by the example, the
        number of the sample and n.

    Raises:
      ValueError: tools, format or an option can't be used.
    """
    made = make_tools(tools)
    form = make_format(format, made, format_options)
    if instructions is not None:
        form = replace(form, instructions=instructions.replace("{tools}", form.instructions))
    for name, value, least in (("max_calls", max_calls, 0), ("calls_in_a_turn", calls_in_a_turn, 1)):
        if not (isinstance(value, int) and value >= least):
            raise ValueError(f"{name} must be a whole number from {least} on, not {value!r}")
    if not (isfinite(max_seconds) and max_seconds >= 0):
        raise ValueError(f"max_seconds must be 0 or more and finite, not {max_seconds}")
    if mistakes := sorted(set(unjudged) & MISTAKES):
        raise ValueError(f"unjudged: {mistakes[0]!r} is a mistake in a call, which is the policy's own")
    if clash := [tool.name for tool in made if f"{tool.name}_calls" in PARTS]:
        raise ValueError(f"tools: the name {clash[0]!r} is taken, by the part {clash[0]}_calls; name it otherwise")
    by_name = {tool.name: tool for tool in made}
    unreliable = _reliability(reliability or {}, by_name)
    rules = _Rules(by_name, form, max_calls, max_seconds, calls_in_a_turn, failure, tuple(unjudged), unreliable)
    return _env(rules)


def _env(rules: _Rules) -> Env:
    made, form = tuple(rules.tools.values()), rules.form
    return Env(
        lambda example: (_State(example.id), example.prompt),
        partial(_step, rules),
        partial(_receive, rules),
        (*PARTS, *(f"{tool.name}_calls" for tool in made if not tool.ends)),
        drawn=lambda state, sample: replace(state, id=f"{state.id}/{sample}"),
        at=lambda state, steps: replace(state, steps=steps),
        parts_of=partial(_parts_of, rules),
        calls_of=lambda state: state.calls,
        sandboxes=tuple(tool.sandbox for tool in made if tool.sandbox),
        tools=Tools(tuple(tool.schema for tool in made), form.instructions, form.native, form.variable),
        ends=form.ends,
        fitted=lambda shorten: _env(replace(rules, shorten=shorten)),
        says=tuple(form.observe([(made[0].name, text)]) for text in _failures(rules)),
        worded_by="`failure`, and the `observation` of `format_options`, to texts it encodes, such as '!!' and '{}|'",
        reworded=partial(_reworded, rules),
    )


def _step(rules: _Rules, state: _State, text: str) -> tuple[_State, Action]:
    """Executes the calls of a turn; a turn without any is the answer."""
    state, tools = replace(state, turn=state.turn + 1), rules.tools
    calls = rules.form.parse(text)
    if not calls:
        return state, Done()
    if len(calls) > rules.calls_in_a_turn:
        why = f"{len(calls)} calls in a turn, and {rules.calls_in_a_turn} can be made; none was"
        return _told(rules, state, [(ParsedCall("", {}), Result("several", why))])
    calls = tuple(_checked(call, tools) for call in calls)
    endings = [tools[call.tool] for call in calls if not call.wrong and tools[call.tool].ends]
    if endings and len(calls) == 1:
        (call,) = calls
        ended = _with_records(state, [(call, Result("ok", ""))])
        return ended, Done(answer=endings[0].answer.replace("{}", call.arguments[endings[0].only]))
    executed = sum(not call.wrong for call in calls)
    if rules.max_calls and executed and _executed(state) + executed > rules.max_calls:
        return state, Done(reason="calls")
    known = [_known(rules, state, *pair, endings) for pair in enumerate(calls, start=len(state.calls))]
    asked = tuple(zip(calls, known, strict=True))
    jobs = [
        job_of(tools[call.tool], call.arguments, state.earlier.get(call.tool, ()))
        for call, result in asked
        if result is None
    ]
    if not jobs:
        return _told(rules, state, asked)
    return replace(state, asked=asked), Call(tuple(jobs))


def _known(rules: _Rules, state: _State, number: int, call: ParsedCall, endings: Sequence[Tool]) -> Result | None:
    """The result of a call that is not executed; None for one that is."""
    if call.wrong:
        return Result(call.wrong, call.why)
    if endings:
        return Result("several", f"{endings[0].name} must be the only call of a turn; nothing was executed")
    if _fails(state, call, number, rules.unreliable) == "error":
        return Result(UNRELIABLE, "the tool failed")
    return None


def _receive(rules: _Rules, state: _State, results: tuple[ToolResult, ...]) -> tuple[_State, Action]:
    """The observation of the calls that have been executed, and of the others of their turn."""
    came, said, earlier = iter(results), [], dict(state.earlier)
    for number, (call, known) in enumerate(state.asked, start=len(state.calls)):
        result = known
        if result is None:
            result = result_of(*_fields(next(came)))
            if result.outcome not in _ENDED_BY_LIMITS and rules.tools[call.tool].state:
                earlier[call.tool] = (*earlier.get(call.tool, ()), call.arguments)
            if result.succeeded and _fails(state, call, number, rules.unreliable):
                result = replace(result, outcome=UNRELIABLE, text=garbled(result.text, state.id, number))
            result = shown(rules.tools[call.tool], result, rules.shorten)
        said.append((call, result))
    state, action = _told(rules, replace(state, earlier=earlier, asked=()), said)
    if rules.max_seconds and sum(call.seconds for call in state.calls) > rules.max_seconds:
        return state, Done(reason="tool_seconds")
    return state, action


def _told(rules: _Rules, state: _State, said: Sequence[tuple[ParsedCall, Result]]) -> tuple[_State, Action]:
    """The observation of a turn's calls."""
    texts = []
    for call, result in said:
        garbage = result.outcome == UNRELIABLE and rules.unreliable[call.tool].shows == "garbage"
        output = result.succeeded or garbage
        texts.append((call.tool, result.text if output else rules.failed(result.text)))
    state = _with_records(state, said, texts)
    if failed := [(call.tool, result) for call, result in said if result.outcome in rules.unjudged]:
        tool, result = failed[0]
        return state, Done(reason="tool_error", error=f"the tool {tool} failed ({result.outcome}): {result.text}")
    return state, Say(rules.form.observe(texts))


def _reworded(rules: _Rules, state: _State) -> tuple[_State, Say]:
    """The failure of the last turn's calls, for outputs without tokens."""
    before = [call for call in state.calls if call.turn < state.turn]
    of_turn = [call for call in state.calls if call.turn == state.turn]
    text = rules.failed(_NO_TOKENS)
    told = [
        replace(call, outcome=UNENCODED, characters=len(text), error=_NO_TOKENS)
        if call.succeeded
        else replace(call, characters=len(text))
        for call in of_turn
    ]
    return replace(state, calls=(*before, *told)), Say(rules.form.observe([(call.tool, text) for call in told]))


def _failures(rules: _Rules) -> list[str]:
    """Texts after calls without an output, one of each kind that no call's content changes."""
    reasons = (
        _NO_TOKENS,
        "the tool failed",
        "2 calls in a turn, and 1 can be made; none was",
        *(_checked(ParsedCall(name, {}), rules.tools).why for name in ("?", *rules.tools)),
    )
    return list(dict.fromkeys(map(rules.failed, reasons)))


def _parts_of(rules: _Rules, state: _State) -> dict[str, float]:
    ran = [call for call in state.calls if call.executed and not rules.tools[call.tool].ends]
    counts = {f"{name}_calls": sum(call.tool == name for call in ran) for name, x in rules.tools.items() if not x.ends}
    counts |= {
        "tool_calls": len(ran),
        "tool_errors": sum(not call.succeeded for call in ran),
        "malformed_calls": sum(not call.executed for call in state.calls),
    }
    return {name: float(value) for name, value in counts.items()}


def garbled(text: str, *path: str | int) -> str:
    """The text with every digit and ASCII letter replaced by another one, drawn by the path."""
    found = []
    for place, character in enumerate(text):
        for alphabet in ("0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
            if character in alphabet:
                others = alphabet.replace(character, "")
                character = others[draw("garbage", *path, place) % len(others)]
                break
        found.append(character)
    return "".join(found)


def _reliability(given: Mapping[str, Mapping[str, Any]], by_name: Mapping[str, Tool]) -> dict[str, Reliability]:
    if unknown := sorted(given.keys() - by_name.keys()):
        raise ValueError(f"reliability: there is no tool {unknown[0]!r}; there are {', '.join(by_name)}")
    for name, options in given.items():
        try:
            named.check_options(Reliability, options, typed=True)
        except ValueError as error:
            raise ValueError(f"reliability of {name!r}: {error}") from None
    return {name: Reliability(**options) for name, options in given.items()}


def _checked(call: ParsedCall, by_name: Mapping[str, Tool]) -> ParsedCall:
    """The call, with the mistake of an unknown tool or of arguments that do not fit."""
    if call.wrong:
        return call
    if call.tool not in by_name:
        why = f"there is no tool {call.tool[:50]!r}; there are {', '.join(by_name)}"
        return replace(call, tool="", wrong="unknown_tool", why=why)
    parameters = by_name[call.tool].parameters
    if nesting(call.arguments) > _MOST_LEVELS:
        why = f"the arguments are nested deeper than {_MOST_LEVELS} levels"
    else:
        why = wrong(parameters, call.arguments)
    if why:
        return replace(call, wrong="wrong_arguments", why=why)
    return replace(call, arguments=converted(parameters, call.arguments))


def _fails(state: _State, call: ParsedCall, number: int, unreliable: Mapping[str, Reliability]) -> Shows | None:
    """The way in which a call is made to fail; None if it is not."""
    given = unreliable.get(call.tool)
    fails = given is not None and uniform("reliability", state.id, number, call.tool) >= given.after(state.steps)
    return given.shows if fails else None


def _executed(state: _State) -> int:
    return sum(call.executed for call in state.calls)


def _with_records(
    state: _State, said: Sequence[tuple[ParsedCall, Result]], texts: Sequence[tuple[str, str]] = ()
) -> _State:
    lengths = [len(text) for _, text in texts] or [0] * len(said)
    records = tuple(
        CallRecord(
            state.turn,
            call.tool,
            result.outcome,
            result.seconds,
            length,
            _was_executed(call, result),
            _error_of(call, result),
        )
        for (call, result), length in zip(said, lengths, strict=True)
    )
    return replace(state, calls=state.calls + records)


def _was_executed(call: ParsedCall, result: Result) -> bool:
    return not call.wrong and result.outcome != "several"


def _error_of(call: ParsedCall, result: Result) -> str:
    if result.succeeded or result.outcome == UNRELIABLE or not _was_executed(call, result):
        return ""
    return f"{result.text[:_MOST_OF_ERROR]} ({result.place})" if result.place else result.text[:_MOST_OF_ERROR]


def _fields(result: ToolResult) -> tuple[Any, str | None]:
    return result.value, result.error
