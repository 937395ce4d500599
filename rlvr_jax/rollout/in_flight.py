"""Episodes in flight at a checkpoint, as records of what has come in: turns of the policy, results of tools, verdicts.

An environment is a function of what comes in, so a resumed run replays the records and is then where the saved one was:
nothing is sampled, called or judged twice. Environments' states need not be saved.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import UInt32

from rlvr_jax.rollout.as_json import array_of, text_of, turn_from_json, turn_to_json
from rlvr_jax.rollout.requests import Request, Turn
from rlvr_jax.verifiers.jobs import ToolError
from rlvr_jax.verifiers.verdict import Verdict

Results = Sequence[Future]  # of the tools that an environment has called at once


@dataclass
class Log:
    """The turns, results and verdict that have come in for an episode.

    Attributes:
      key: of its random stream, by which it is known in a resumed run.
      own: True in the process that calls its environment.
      first: id of the episode that has asked for it, or one that has asked for that; or its own.
      turns: of the policy.
      results: of its calls of tools, those that have yet to come included.
      received: how many of these the environment has got.
      due: the decode step at which it gets the next ones.
      ended: the decode step at which the episode has ended.
      verdict: on the episode.
    """

    key: UInt32[np.ndarray, "words"] = field(default_factory=lambda: np.zeros(0, np.uint32))
    own: bool = True
    first: int = 0
    turns: list[Turn] = field(default_factory=list)
    results: list[Results] = field(default_factory=list)
    received: int = 0
    due: int = 0
    ended: int = 0
    verdict: Future | None = None


class Recorded:
    """A sampler that returns recorded turns.

    Attributes:
      open: ids of the episodes whose next turn has not been recorded: that was in flight.
    """

    steps = 0

    def __init__(self, turns: Mapping[int, Sequence[Turn]]) -> None:
        self._turns = {i: list(x) for i, x in turns.items()}
        self._next: list[Turn] = []
        self.open: set[int] = set()

    def submit(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if self._turns.get(request.id):
                self._next.append(self._turns[request.id].pop(0))
            else:
                self.open.add(request.id)

    def ready(self) -> bool | None:
        return True if self._next else None

    def poll(self, _steps: int | None = None) -> list[Turn]:
        turns, self._next = self._next, []
        return turns

    def release(self, ids: Sequence[int]) -> None:
        pass


def log_to_json(log: Log) -> dict[str, Any]:
    """A log as JSON data, but for its results and verdict; see `results_to_json`."""
    return {
        "key": text_of(log.key),
        "turns": list(map(turn_to_json, log.turns)),
        "received": log.received,
        "due": log.due,
        "ended": log.ended,
    }


def results_to_json(log: Log) -> dict[str, Any]:
    """Waits for the results and the verdict of a log."""
    return {
        "results": [list(map(_result_to_json, futures)) for futures in log.results],
        "verdict": None if log.verdict is None else asdict(log.verdict.result()),
    }


def log_from_json(data: Mapping[str, Any]) -> Log:
    """The log of `log_to_json` and `results_to_json`."""
    turns = list(map(turn_from_json, data["turns"]))
    results = [[_future(*result) for result in results] for results in data["results"]]
    verdict = None if data["verdict"] is None else _future(Verdict(**data["verdict"]))
    numbers = {name: data[name] for name in ("received", "due", "ended")}
    return Log(array_of(data["key"], "<u4"), turns=turns, results=results, verdict=verdict, **numbers)


def _result_to_json(future: Future) -> tuple[Any, str | None]:
    """The value of a tool, and its error."""
    try:
        return future.result(), None
    except ToolError as error:
        return None, str(error)


def _future(value: Any, error: str | None = None) -> Future:
    future: Future = Future()
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(ToolError(error))
    return future
