"""The course of an environment of the package `verifiers`, see `rlvr_jax.tasks.verifiers_env`.

Its functions run in the training process, within the time that environments have. Its state is its own: a dictionary
with the fields of the problem, "messages", "turn", "trajectory" and "completion", as the package has them.
"""

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from rlvr_jax.envs.env import Action, Done, Env, Say
from rlvr_jax.tasks.task import Example
from rlvr_jax.tasks.verifiers_env import load, message, signed
from rlvr_jax.text.messages import Messages


def verifiers_env() -> Env:
    """An environment of `verifiers` for the task of the same name, in messages; it ends when its own says so."""

    def start(example: Example) -> tuple[dict[str, Any], Messages]:
        reference = example.reference
        if not (isinstance(reference, Mapping) and {"environment", "arguments", "row"} <= reference.keys()):
            raise ValueError(f"it is for problems of the task verifiers_env, and {example.id} is none")
        env, row = load(reference["environment"], reference["arguments"]), deepcopy(dict(reference["row"]))
        prompt = list(row["prompt"])
        state: dict[str, Any] = {"answer": "", "info": {}, "task": "default", **row, "prompt": prompt}
        state |= {"turn": 0, "trajectory": [], "completion": [], "responses": [], "error": None, "reward": None}
        state |= {"is_completed": False, "is_truncated": False, "final_env_response": None, "metrics": {}}
        state |= {"timing": {"scoring_ms": 0.0, "total_ms": 0.0, "generation_ms": 0.0, "start_time": 0.0}}
        begun = _called(env, "setup_state", state)
        state = begun if isinstance(begun, dict) else state
        return {"reference": reference, "state": state}, tuple(map(message, prompt))

    def step(episode: dict[str, Any], text: str) -> tuple[dict[str, Any], Action]:
        reference, state = episode["reference"], episode["state"]
        env = load(reference["environment"], reference["arguments"])
        said = {"role": "assistant", "content": text}
        state["trajectory"].append({"prompt": [*state["prompt"], *state["completion"]], "completion": [said]})
        state["completion"].append(said)
        state["turn"] += 1
        if _completed(env, state):
            return episode, _done(env, reference, state)
        answer = _called(env, "env_response", [*state["prompt"], *state["completion"]], state)
        if isinstance(answer, tuple):
            answer, changed = answer
            episode = {**episode, "state": changed if isinstance(changed, dict) else state}
            state = episode["state"]
        messages = [{"role": "user", "content": answer}] if isinstance(answer, str) else list(answer or ())
        state["completion"].extend(messages)
        if state.get("final_env_response") or not messages:
            return episode, _done(env, reference, state)
        return episode, Say(tuple(map(message, messages)))

    return Env(start, step)


def _completed(env: Any, state: dict[str, Any]) -> bool:
    takes = inspect.signature(env.is_completed).parameters
    positional = [x for x in takes.values() if x.kind in (x.POSITIONAL_ONLY, x.POSITIONAL_OR_KEYWORD)]
    messages = [*state["prompt"], *state["completion"]]
    return bool(_called(env, "is_completed", *((messages, state) if len(positional) > 1 else (state,))))


def _done(env: Any, reference: Mapping[str, Any], state: dict[str, Any]) -> Done:
    """The end of an episode, with the reward by the environment's rubric."""
    state["is_completed"] = True
    if state.get("error") is not None:
        return Done(reason="env_error", error=f"the environment says: {state['error']}"[:500])
    rubric = env.rubric
    if callable(getattr(rubric, "score_rollout", None)):
        limited = len(inspect.signature(rubric.score_rollout).parameters) > 1  # by a semaphore, as in the package
        found = _called(rubric, "score_rollout", state, *[contextlib.nullcontext()] * limited)
    else:
        found = _called(rubric, "score", state)
    numbers = {**(state.get("metrics") or {}), "reward": found if _is_number(found) else state["reward"]}
    if other := {name: value for name, value in numbers.items() if not _is_number(value)}:
        told = ", ".join(f"{name} = {value!r:.100}" for name, value in other.items())
        return Done(reason="env_error", error=f"the rubric gives no number: {told}; it returned {found!r:.100}"[:500])
    numbers = {name: float(value) for name, value in numbers.items()}
    return Done(answer=signed(reference, numbers.pop("reward"), numbers))


def _called(owner: Any, name: str, *arguments: Any) -> Any:
    """The result of a method, awaited if it is asynchronous; None if there is no such method."""
    method: Callable[..., Any] | None = getattr(owner, name, None)
    if method is None:
        return None
    found = method(*arguments)
    return asyncio.run(_awaited(found)) if inspect.isawaitable(found) else found


async def _awaited(found: Any) -> Any:
    return await found


def _is_number(value: Any) -> bool:
    """True for a number or bool, those of NumPy and JAX among them."""
    return hasattr(value, "__float__") and np.ndim(value) == 0
