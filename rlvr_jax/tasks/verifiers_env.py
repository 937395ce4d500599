"""Environments of the package `verifiers` as tasks: their problems, their course and their rewards.

The package's environments of several turns (its class `MultiTurnEnv`, up to 0.3) have a data set, functions of messages
and a state, and a rubric of reward functions. Any object with these methods will do, the package's own or another's;
they may be asynchronous:

    get_dataset() -> rows with "prompt" (messages) or "question", and perhaps "answer", "info", "task"; likewise
        get_eval_dataset(), for held-out problems
    setup_state(state) -> state, or None for a state changed in place
    env_response(messages, state) -> messages; or (messages, state)
    is_completed(state) -> bool; or is_completed(messages, state)
    rubric.score_rollout(state, …), which sets state["reward"] and perhaps state["metrics"]; or score(state) -> a number

The environment `verifiers` (`rlvr_jax.envs.verifiers_env`) plays them. It gives the verifier of this task its account
of the episode, signed so that a policy's text can't pass for one.
"""

import functools
import hashlib
import importlib
import json
from collections.abc import Mapping
from typing import Any

from rlvr_jax import named
from rlvr_jax.tasks.task import Example, Split, Task

_ROLES = {"developer": "system", "function": "tool"}  # by other names
_NEEDED = ("env_response", "is_completed")


def verifiers_env(environment: str, arguments: Mapping[str, Any] | None = None) -> Task:
    """The problems of an environment of `verifiers`.

    Args:
      environment: its name, for `verifiers.load_environment`; or the function that returns one, as `module:function`.
      arguments: keyword arguments of that.

    Raises:
      ValueError: the package is not installed or lacks the function, or the environment has another form.
    """
    text = json.dumps(dict(arguments or {}), sort_keys=True)
    env = load(environment, text)
    rows = {"train": _rows(env, "get_dataset"), "heldout": _rows(env, "get_eval_dataset")}
    if not rows["train"]:
        raise ValueError(f"verifiers_env: {environment!r} has no problems")

    def example(split: Split, index: int) -> Example:
        if not 0 <= index < len(rows[split]):
            raise IndexError(f"verifiers_env: {split} has {len(rows[split])} problems, there is no index {index}")
        row = rows[split][index]
        reference = {"environment": environment, "arguments": text, "row": row}
        gold = row.get("answer")
        return Example(
            f"verifiers_env/{split}/{index}", row["prompt"], reference, "verifiers_env", gold if gold else ""
        )

    return Task("verifiers_env", f"{__name__}:account", example, lambda split: len(rows[split]))


@functools.lru_cache(maxsize=8)
def load(environment: str, arguments: str) -> Any:
    """The environment of a name, created once per process. Arguments are JSON. Raises ValueError as `verifiers_env`."""
    if named.is_name(environment):
        make = named.load(environment)
    else:
        try:
            package = importlib.import_module("verifiers")
            make = functools.partial(package.load_environment, environment)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"verifiers_env: {environment!r} needs the package verifiers with its function load_environment, "
                f"'verifiers<0.4': {error}"
            ) from error
    try:
        made = make(**json.loads(arguments))
    except Exception as error:
        raise ValueError(f"verifiers_env: {environment!r}: {type(error).__name__}: {error}") from error
    if missing := [name for name in _NEEDED if not callable(getattr(made, name, None))]:
        raise ValueError(f"verifiers_env: {environment!r} has no {missing[0]}, as environments of several turns have")
    rubric = getattr(made, "rubric", None)
    if not any(callable(getattr(rubric, name, None)) for name in ("score_rollout", "score")):
        raise ValueError(f"verifiers_env: the rubric of {environment!r} has no score_rollout")
    return made


def _rows(env: Any, name: str) -> list[dict[str, Any]]:
    """The problems of a split as plain data, with messages as their prompts; none if there is no such method."""
    if not callable(getattr(env, name, None)):
        return []
    try:
        found = getattr(env, name)()
    except ValueError:  # of the package, if there is no such data set
        return []
    rows = []
    for number, row in enumerate(found or ()):
        try:
            prompt = row.get("prompt") or row.get("question")
            if not prompt:
                raise ValueError(
                    f"it has neither 'prompt' nor 'question', but {', '.join(map(repr, row)) or 'nothing'}"
                )
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            kept = {key: row[key] for key in ("answer", "info", "task", "example_id") if row.get(key) is not None}
            made = {"example_id": number, **kept, "prompt": [message(given) for given in messages]}
            plain = json.loads(json.dumps(made, allow_nan=False))
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"verifiers_env: problem {number} can't be used: {error}") from error
        rows.append({**plain, "prompt": tuple(plain["prompt"])})
    return rows


def message(given: Any) -> dict[str, str]:
    """Role and text of a message, whose content may be a list of parts, or None.

    Raises:
      ValueError: it is no such message, or has what is no text: calls of tools, an image.
    """
    if not (isinstance(given, Mapping) and isinstance(given.get("role"), str) and "content" in given):
        raise ValueError(f"a message is a dictionary with 'role' and 'content', not {given!r:.100}")
    if given.get("tool_calls"):
        raise ValueError(f"a message of the role {given['role']!r} has tool_calls, which a prompt can't show")
    content = given["content"]
    parts = [content] if isinstance(content, str) else content or ()
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    if other := [part for part, text in zip(parts, texts, strict=True) if not isinstance(text, str)]:
        raise ValueError(f"a message of the role {given['role']!r} has a content that is no text: {other[0]!r:.100}")
    return {"role": _ROLES.get(given["role"], given["role"]), "content": "".join(texts)}


def signed(reference: Mapping[str, Any], reward: float, metrics: Mapping[str, float]) -> str:
    """An environment's account of an episode, for `account`."""
    return f"{_signature(reference)} {json.dumps({'reward': reward, 'metrics': dict(metrics)})}"


def account(completion: str, reference: Mapping[str, Any]) -> dict[str, float]:
    """The verdict on an episode by the account of its environment: the reward, within 0 and 1, as the score.

    Parts: `reward` itself, and the environment's metrics. Text without the account, of an episode that a limit of the
    rollout ended, scores 0.
    """
    signature, _, text = completion.partition(" ")
    if signature != _signature(reference):
        return {"score": 0.0, "reward": 0.0}
    told = json.loads(text)
    return {**told["metrics"], "score": min(max(told["reward"], 0.0), 1.0), "reward": told["reward"]}


def _signature(reference: Mapping[str, Any]) -> str:
    """Of 256 bits, which no policy guesses."""
    text = json.dumps(reference, sort_keys=True)
    return hashlib.blake2b(f"account {text}".encode(), digest_size=32).hexdigest()
