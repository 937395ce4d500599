"""The actions of environments as JSON data, which the processes of a run exchange."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

import numpy as np

from rlvr_jax import named
from rlvr_jax.envs import Call, Done, Force, NewWindow, Say, ToolResult, checked
from rlvr_jax.rollout.playing import Limited, Limits, Playing, budget, judged
from rlvr_jax.text.tags import after_thinking
from rlvr_jax.text.tokenizers import encode
from rlvr_jax.verifiers.jobs import Job, ToolCall, ToolError
from rlvr_jax.verifiers.pool import PoolError

_MOST_CALLS = 100  # of tools, one after the other without a turn of the policy: an environment may not call for ever


@runtime_checkable
class Jobs(Protocol):
    """The interface of a pool that a collector uses, see `rlvr_jax.verifiers.pool`."""

    def submit(self, jobs: Sequence[Job | ToolCall]) -> list[Future]: ...


def action_of(
    called: Callable[[Playing, Sequence[ToolCall]], Sequence[Future]],
    tokenizer: Any,
    limits: Limits,
    limited: Limited,
    playing: Playing,
    function: Callable[[], tuple[Any, Any]],
) -> dict[str, Any]:
    """The environment's next action: `kind`, and what belongs to it.

    | kind | with | after |
    |---|---|---|
    | `say`, `force`, `window` | `tokens`, of `say` also `role` | `Say`, `Force`, `NewWindow` |
    | `ask` | `prompts`, and `tokens` of each | `Ask` |
    | `call` | | `Call`, whose tools run |
    | `end` | `ends`: `reason`, `answer`, `error` and `parts` of each role, or one for all | `Done`, or what it raised |

    But for calls and errors it comes with `so_far`, see `account`; if the episode goes on, with `budget` and `filled`;
    after the answers to an `Ask` with `credits`, the rewards of its episodes, if the environment gives any.

    Args:
      called: submits the calls of tools of an episode.
      tokenizer: of the policy.
      limits: of the episode.
      limited: calls the environment's functions.
      playing: the episode, whose state is replaced.
      function: returns the environment's (state, action).
    """
    try:
        action = _executed(playing, limited(lambda: checked(playing.env, function())))
        credits = {"credits": playing.credits} if playing.credits else {}
        filled = isinstance(action, Say) and _is_full(playing, action, limits)
        if filled:
            action = _executed(playing, limited(lambda: checked(playing.env, playing.env.full(playing.state, action))))
        if isinstance(action, Call):
            playing.calls += 1
            if playing.calls > _MOST_CALLS:
                raise ValueError(f"it called tools {_MOST_CALLS} times without a turn of the policy")
            playing.tools = called(playing, action.calls)  # raises ValueError if there is no such tool
            return {"kind": "call", **credits}
        tokens = None if isinstance(action, Done) else _tokens(playing, action, tokenizer)
        so_far = limited(account, playing)
        if isinstance(action, Done):
            ends = [
                {"reason": end.reason, "answer": end.answer, "error": end.error, "parts": dict(end.parts)}
                for end in action.roles or (action,)
            ]
            return {"kind": "end", "ends": ends, "so_far": so_far, **credits}
        found = {
            **credits,
            "tokens": tokens,
            "so_far": so_far,
            "budget": limited(budget, playing),
            "filled": filled,
        }
        if isinstance(action, Say):
            return {"kind": "say", "role": action.role, **found}
        if isinstance(action, Force):
            return {"kind": "force", **found}
        if isinstance(action, NewWindow):
            return {"kind": "window", **found}
        return {"kind": "ask", "prompts": list(action.prompts), **found}
    except PoolError:
        raise
    except (Exception, SystemExit) as error:
        return {
            "kind": "end",
            "ends": [{"reason": "env_error", "error": f"the environment raised {named.placed(error)}"}],
        }


def _executed(playing: Playing, returned: tuple[Any, Any]) -> Any:
    """The action that an environment returned with a state, which is that of all episodes of a game."""
    for seat in playing.together:
        seat.state = returned[0]
    return returned[1]


def account(playing: Playing) -> dict[str, Any]:
    """The environment's account of the episode so far, as JSON data: parts, calls of tools, and the text to judge."""
    env, state = playing.env, playing.state
    parts = {} if env.parts_of is None else {name: float(value) for name, value in env.parts_of(state).items()}
    calls = () if env.calls_of is None else env.calls_of(state)
    return {
        "parts": dict.fromkeys(env.parts, 0.0) | parts,
        "calls": list(map(asdict, calls)),
        "judged": judged(playing),
    }


def receive(playing: Playing) -> tuple[Any, Any]:
    """The action of an environment after the results of its tools, or of the episodes that it has asked for."""
    results, env = tuple(map(_result, playing.tools)), playing.env
    if playing.asked and env.credit is not None:
        playing.credits = [float(x) for x in env.credit(playing.state, results)]
        if len(playing.credits) != len(results) or not np.isfinite(playing.credits).all():
            raise ValueError(f"Env.credit returned {playing.credits} for {len(results)} episodes")
    return env.receive(playing.state, results)


def answers(asked: Sequence[Playing]) -> list[Future]:
    """The results of the episodes that an environment has asked for, like those of tools."""
    found = []
    for playing in asked:
        future, episode = Future(), playing.episode
        said = after_thinking(episode.judged)
        if episode.error is None and not episode.cut_off and said is not None:
            future.set_result(said)
        else:
            reason = episode.finish_reason if episode.cut_off else "the thought has no end"
            future.set_exception(ToolError(episode.error or reason))
        found.append(future)
    return found


def _tokens(playing: Playing, action: Any, tokenizer: Any) -> Any:
    """The tokens of an action, or of each prompt of an `Ask`."""
    if isinstance(action, Say):
        return observed(playing.together[action.role], action)
    if isinstance(action, Force):
        return encode(tokenizer, action.text) if action.text else []
    prompt = playing.source.prompt
    return prompt(action.prompt) if isinstance(action, NewWindow) else list(map(prompt, action.prompts))


def _is_full(playing: Playing, action: Say, limits: Limits) -> bool:
    """True if an observation would leave less of the window than the environment's reserve, and it can help that."""
    if playing.env.full is None or playing.filled:
        return False
    length = playing.response_length + len(observed(playing, action))
    return length + playing.env.reserve >= limits.response


def observed(playing: Playing, action: Say) -> list[int]:
    """The tokens of an observation, reworded if it has none.

    Raises:
      ValueError: it has none, or can't be encoded, and the environment has no other words.
    """
    last, reworded = int(playing.spans[-1].tokens[-1]), playing.env.reworded
    try:
        tokens = playing.source.observe(action.observation, last)
    except ValueError:
        if reworded is None:
            raise
        tokens = []
    if not tokens and reworded is not None:
        playing.state, action = reworded(playing.state)
        tokens = playing.source.observe(action.observation, last)
    if not tokens:
        raise ValueError(f"{action!r:.100} has no tokens, so there is nothing to answer")
    return tokens


def _result(future: Future) -> ToolResult:
    try:
        return ToolResult(future.result())
    except ToolError as error:
        return ToolResult(error=str(error))
