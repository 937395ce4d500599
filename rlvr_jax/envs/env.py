"""Environments and their actions.

An environment is two pure functions. `start` returns the state of an episode and its prompt; `step` returns, for the
text of a turn, the next state and an action: `Say` an observation, `Call` tools, or `Done`. After a `Call` the function
`receive` gets the results of the tools and returns the same as `step`. States are immutable.

    def start(example):
        return 0, example.prompt

    def step(state, text):
        return (state, Done()) if "yes" in text or state == 2 else (state + 1, Say("Are you sure?\n"))

    doubtful = Env(start, step)

These functions run in the training process, each call for at most `verifier.timeout` seconds; code that may crash or
needs a limit of memory belongs into a tool, which runs in the verifier pool. If an environment raises, takes too long
or returns something else, its episode ends unjudged and is left out of its group.

Three more actions are for long episodes (docs/long_contexts.md): `NewWindow` begins a new context window, `Force`
writes into the policy's turn, and `Ask` calls the policy itself.

The environment `tools` (`rlvr_jax.envs.tool_use`) lets the policy call tools in the middle of any task.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Literal, get_args

from rlvr_jax.tasks.task import Example
from rlvr_jax.text.messages import Messages, wrong_messages
from rlvr_jax.text.prompts import Tools
from rlvr_jax.verifiers.jobs import ToolCall

# "stop": the environment was done; "length": a turn hit its token limit; "window": an observation did not fit into the
# rest of the window; "prompt": nor did the prompt of a new window into its share; "turns", "sequences": limits of turns
# and of context windows; "calls", "tool_seconds": limits of the use of tools; "env_error": the environment failed;
# "tool_error": the environment gave up because of a tool; "cancelled": a limit ended the game of roles, but that of
# another role. Nothing else cancels an episode: what is in flight when a run is stopped is finished or saved.
FinishReason = Literal[
    *("stop", "length", "window", "prompt", "turns", "sequences", "calls", "tool_seconds"),
    *("env_error", "tool_error", "cancelled"),
]
_REASONS = get_args(FinishReason)
Shorten = Callable[[str, int], str]  # a text and a number of tokens -> its beginning of at most so many


@dataclass(frozen=True)
class Say:
    """An observation for the policy: messages for the chat template, or text (a user message with a template).

    Attributes:
      observation: the policy's next turn follows it.
      role: the number of the role whose turn that is, in an environment with `Env.roles`.
    """

    observation: str | Messages
    role: int = 0


@dataclass(frozen=True)
class NewWindow:
    """The end of a context window: the policy goes on after this prompt alone, and the sequences before it are kept."""

    prompt: str | Messages


@dataclass(frozen=True)
class Force:
    """Text in the policy's turn that it has not sampled and is not trained on; its turn goes on behind it.

    Without any text the turn just goes on, after `Env.cut`.
    """

    text: str = ""


@dataclass(frozen=True)
class Ask:
    """Calls of the policy itself, in parallel, each an episode of `Env.inner` that begins with one of the prompts.

    `Env.receive` gets a `ToolResult` for each, in order: the text that would be judged, without its thoughts; or, as
    the error, the limit that it hit, or that its thought has no end.
    """

    prompts: tuple[str | Messages, ...]


@dataclass(frozen=True)
class ToolResult:
    """The result of a tool, or its error."""

    value: Any = None
    error: str | None = None


@dataclass(frozen=True)
class Call:
    """Tool calls; `Env.receive` gets a `ToolResult` for each, in order.

    An episode fails after 100 calls, one after the other, without a turn of the policy.
    """

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True)
class Done:
    """The end of an episode.

    Attributes:
      parts: numbers that join the parts of the verdict, for rewards and reports; their names are in `Env.parts`.
      reason: finish reason of the episode.
      answer: the policy's text that is judged; None for its turns, see `Env.judged`.
      error: why the episode can't be judged, which leaves it out of its group; None if it can.
      roles: the end of the episode of each role, in an environment with `Env.roles`; empty for the same end of all.
    """

    parts: Mapping[str, float] = field(default_factory=dict)
    reason: FinishReason = "stop"
    answer: str | None = None
    error: str | None = None
    roles: tuple["Done", ...] = ()


Action = Say | Call | Done | NewWindow | Force | Ask


@dataclass(frozen=True)
class CallRecord:
    """A call of a tool that the policy made, for metrics and the report.

    Attributes:
      turn: number of the policy's turn, from 0.
      tool: its name; empty if the call could not be read.
      outcome: see `rlvr_jax.tools.tool.Result`; or the name of the mistake in the call.
      seconds: that it took.
      characters: of what the policy was told.
      executed: False for a mistake in the call.
      error: why a call that was executed has no output, with file and line where the tool's function raised.
    """

    turn: int
    tool: str
    outcome: str
    seconds: float = 0.0
    characters: int = 0
    executed: bool = True
    error: str = ""

    @property
    def succeeded(self) -> bool:
        """True if the tool gave an output."""
        return self.outcome in ("ok", "cut")


@dataclass(frozen=True)
class Env:
    """An environment, see the module docstring.

    Attributes:
      start: example -> (state, prompt).
      step: (state, text of the policy's turn) -> (state, action). The text begins with `<think>` if the prompt, or the
        template before this turn, has opened a thought.
      receive: (state, results of the tools) -> (state, action); None for environments that call none.
      drawn: (initial state, number of the episode) -> the same, with random choices of its own; None if all are those
        of the example.
      at: (state, training steps that the policy of the turn has had) -> the state that `step` gets; None for the same.
      parts: the possible names of `Done.parts`; missing ones count as 0.
      check: called with a problem before a run; raises ValueError if an option turns out wrong on it. None for nothing.
      one_turn: every episode has a single turn, so static batches may be used.
      one_sequence: every episode has a single context window; False for those that return `NewWindow` or `Ask`.
      parts_of: state -> parts, also of an episode that ends by a limit of the rollout; those of `Done` come first.
      calls_of: state -> the calls of tools so far.
      sandboxes: engine and packages of those that its tools need.
      tools: that prompts describe.
      judged: (state, texts of all turns) -> those of them that verifiers see, however the episode ends; a text begins
        with `<think>` if a thought was open before the turn. None for all.
      ends: texts that end a turn, and belong to it, where they are single tokens of the policy.
      fitted: shorten -> the environment that cuts what its tools say to a number of tokens of the policy; None if it
        has no use for that.
      says: observations that it may make; a run in which one has no tokens does not start.
      worded_by: the options that change them, in words for the message of such a run.
      reworded: state -> (state, other observation), in the place of one that has no tokens or can't be encoded; None
        if that is an error.
      read: (state, text of each token sampled) -> the state that `step` or `cut` gets; None for the same.
      budget: state -> maximum tokens until the next `step` or `cut`; 0, or None, for the limits of the rollout alone.
      cut: (state, text of the turn so far, as for `step`) -> (state, action), after a turn that was cut off by a limit
        of tokens; None ends the episode.
      full: (state, observation) -> (state, other action), in the place of an observation that would leave fewer than
        `reserve` tokens of the window; None ends the episode if it leaves none.
      reserve: tokens of a window that no turn or observation takes before `cut` or `full`.
      added: tokens by which the prompt of a later window may be longer than that of the first.
      inner: of the episodes of `Ask`; None for those of a single turn.
      asked: the policy of the episodes of `Ask`, and of those that they ask for: the workdir of a run or a checkpoint,
        which is not trained; empty for the policy itself.
      roles: names of those that the policy plays in one game; empty for none. As many consecutive samples of a problem
        play it, one in each role: each is an episode of its own, whose context has what `Say` says to its role. The
        first role begins. All have one state; advantages compare the samples of a role with each other.
      credit: (state, results of an `Ask`) -> the reward of each of these episodes, in the place of that of the whole
        one; None if they share that.
    """

    start: Callable[[Example], tuple[Any, str | Messages]]
    step: Callable[[Any, str], tuple[Any, Action]]
    receive: Callable[[Any, tuple[ToolResult, ...]], tuple[Any, Action]] | None = None
    parts: tuple[str, ...] = ()
    check: Callable[[Example], None] | None = None
    one_turn: bool = False
    drawn: Callable[[Any, int], Any] | None = None
    at: Callable[[Any, int], Any] | None = None
    parts_of: Callable[[Any], Mapping[str, float]] | None = None
    calls_of: Callable[[Any], tuple[CallRecord, ...]] | None = None
    judged: Callable[[Any, Sequence[str]], Sequence[str]] | None = None
    sandboxes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tools: Tools | None = None
    ends: tuple[str, ...] = ()
    fitted: "Callable[[Shorten], Env] | None" = None
    says: tuple[str | Messages, ...] = ()
    worded_by: str = ""
    reworded: Callable[[Any], tuple[Any, Say]] | None = None
    one_sequence: bool = True
    read: Callable[[Any, Sequence[str]], Any] | None = None
    budget: Callable[[Any], int] | None = None
    cut: Callable[[Any, str], tuple[Any, Action]] | None = None
    full: Callable[[Any, Say], tuple[Any, Action]] | None = None
    reserve: int = 0
    added: int = 0
    inner: "Env | None" = None
    asked: str = ""
    roles: tuple[str, ...] = ()
    credit: Callable[[Any, tuple[ToolResult, ...]], Sequence[float]] | None = None


_SINGLE_TURN = Env(lambda example: (None, example.prompt), lambda state, _: (state, Done()), one_turn=True)


def single_turn() -> Env:
    """The policy answers the problem once."""
    return _SINGLE_TURN


def is_single_turn(env: Env) -> bool:
    """True for `single_turn`, of which it is known without a call that the first turn is the end."""
    return env is _SINGLE_TURN


def begin(env: Env, example: Example) -> tuple[Any, str | Messages]:
    """The state and prompt of an episode. Its start gets data of its own, which no other episode sees if it changes.

    Raises:
      TypeError: the environment returned something else; the message says what. And whatever it raises.
    """
    if is_single_turn(env):
        _check_text(example.prompt, "the prompt")
        return None, example.prompt
    data = {name: deepcopy(getattr(example, name)) for name in ("prompt", "problem", "reference")}
    returned = env.start(replace(example, **data))
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise TypeError(f"its start returned {returned!r:.100}, not (state, prompt)")
    _check_text(returned[1], "its prompt")
    return returned


def begin_group(env: Env, example: Example, samples: Sequence[int]) -> list[Any]:
    """The states of a group's episodes: each its own, since its episode may change it. Raises as `begin`.

    Args:
      env: the environment.
      example: of the group.
      samples: the number of each episode, which names its random choices.
    """
    first, _ = begin(env, example)
    states = [first] + [None if first is None else begin(env, example)[0] for _ in samples[1:]]
    return states if env.drawn is None else [env.drawn(*pair) for pair in zip(states, samples, strict=True)]


def checked(env: Env, returned: Any) -> tuple[Any, Action]:
    """The state and action that `step` or `receive` returned; a `Done` has all of `Env.parts`, as finite floats.

    Raises:
      TypeError, ValueError: it is something else; the message says what.
    """
    if not (isinstance(returned, tuple) and len(returned) == 2):
        raise TypeError(f"it returned {returned!r:.100}, not (state, action)")
    state, action = returned
    if env.one_turn and isinstance(action, Say | Force):
        raise ValueError(f"it returned {type(action).__name__}, but Env.one_turn says that the first turn is the last")
    if isinstance(action, Say):
        _check_text(action.observation, "Say")
        if action.role not in range(max(1, len(env.roles))):
            raise ValueError(f"Say is to the role {action.role!r}, and Env.roles is {env.roles}")
    elif isinstance(action, Call):
        if env.receive is None:
            raise TypeError("it returned Call, but Env.receive is None")
        if not isinstance(action.calls, tuple | list) or not action.calls:
            raise TypeError(f"it returned {action!r:.100}; Call takes a tuple of at least one ToolCall")
        if wrong := [call for call in action.calls if not isinstance(call, ToolCall)]:
            raise TypeError(f"it returned a Call of {wrong[0]!r:.100}, which is no ToolCall")
    elif isinstance(action, NewWindow | Ask) and env.one_sequence:
        name = type(action).__name__
        raise ValueError(f"it returned {name}, but Env.one_sequence says that an episode has one context window")
    elif isinstance(action, NewWindow):
        _check_text(action.prompt, "NewWindow")
    elif isinstance(action, Force):
        if not isinstance(action.text, str):
            raise TypeError(f"Force takes text, not {action.text!r:.100}")
    elif isinstance(action, Ask):
        if env.receive is None:
            raise TypeError("it returned Ask, but Env.receive is None")
        if not isinstance(action.prompts, tuple | list) or not action.prompts:
            raise TypeError(f"it returned {action!r:.100}; Ask takes a tuple of at least one prompt")
        for prompt in action.prompts:
            _check_text(prompt, "Ask")
    elif isinstance(action, Done):
        if action.roles and len(action.roles) != len(env.roles):
            raise ValueError(f"Done has the ends of {len(action.roles)} roles, and Env.roles is {env.roles}")
        of_roles = tuple(checked(env, (state, end))[1] for end in action.roles)
        action = replace(action, parts=_parts(env, state, action), roles=of_roles)
        if action.reason not in _REASONS:
            raise ValueError(f"Done has the reason {action.reason!r:.100}, not one of {', '.join(_REASONS)}")
        for name in ("answer", "error"):
            if not isinstance(text := getattr(action, name), str | None):
                raise TypeError(f"Done has the {name} {text!r:.100}, which is no text")
    else:
        raise TypeError(f"it returned {action!r:.100}, not Say, Call or Done (or another action of rlvr_jax.envs)")
    return state, action


def _parts(env: Env, state: Any, action: Done) -> dict[str, float]:
    """The numbers of the end of an episode, all that the environment may give."""
    given = {} if env.parts_of is None else env.parts_of(state)
    for parts in (given, action.parts):
        if not isinstance(parts, Mapping):
            raise TypeError(f"Done has the parts {parts!r:.100}, not a dictionary")
    given = {**given, **action.parts}
    if unknown := given.keys() - set(env.parts):
        named = ", ".join(sorted(map(str, unknown)))
        raise ValueError(f"Done has the parts {named}, which are not in Env.parts = {env.parts}")
    parts = {name: float(given.get(name, 0.0)) for name in env.parts}
    for name, value in parts.items():
        if not isfinite(value):
            raise ValueError(f"Done has the part {name!r} = {value}, which is not finite")
    return parts


def _check_text(text: Any, where: str) -> None:
    if isinstance(text, str):
        return
    if not isinstance(text, tuple | list):
        raise TypeError(f"{where} takes text or messages, not {text!r:.100}")
    if wrong := wrong_messages(text, where):
        raise ValueError(wrong)
