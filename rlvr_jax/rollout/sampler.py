"""The sampler: a service that takes requests and returns turns of the policy. It knows tokens only.

The tokens of a turn depend only on its request, the tokens before it and the parameters, not on other requests or the
engine. Scheduling depends on the order of the calls and on token counts, never on the clock.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from math import isfinite
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from rlvr_jax import parallel
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.rollout.as_json import array_of, text_of, turn_from_json, turn_to_json
from rlvr_jax.rollout.batches import Batches
from rlvr_jax.rollout.config import InFlight
from rlvr_jax.rollout.continuous import ArraysOf, Ended, Slotted
from rlvr_jax.rollout.layout import decoded, make_move, narrowed, received, shardings_of, widened
from rlvr_jax.rollout.requests import NO_TOKENS, Request, RolloutStats, Turn
from rlvr_jax.rollout.sampling import SamplingConfig
from rlvr_jax.rollout.streams import episode_keys

__all__ = [
    "InFlight",
    "Request",
    "RolloutStats",
    "Sampler",
    "SamplingConfig",
    "Turn",
    "episode_keys",
]


class Sampler:
    """Samples turns from the policy, on its own mesh or the trainer's.

    Args:
      config: the policy's architecture.
      sampling: see `SamplingConfig`.
      mesh: the devices to sample on, see `parallel.rollout_mesh`.
      in_flight: see `set_params`; other than "finish" with slots only.

    Attributes:
      received_bytes: that a device received from others when the parameters were set last; the most of any device.

    Raises:
      ValueError: the settings in `sampling` are inconsistent or don't fit the mesh.
    """

    def __init__(
        self,
        config: PolicyConfig,
        sampling: SamplingConfig,
        mesh: Mesh,
        in_flight: InFlight = "finish",
    ) -> None:
        if in_flight != "finish" and not sampling.slots:
            raise ValueError(f"in_flight = {in_flight!r} needs slots")
        self._trained, self._config = config, decoded(config, mesh)
        self.sampling, self._mesh, self.in_flight = sampling, mesh, in_flight
        self._window = sampling.longest
        self._params, self._version = None, 0
        self._given, self._move, self.received_bytes = None, None, 0
        self._clear()

    def _clear(self) -> None:
        self._engine = (Slotted if self.sampling.slots else Batches)(self._config, self.sampling, self._mesh)
        self._flying: set[int] = set()
        self._episodes: dict[int, tuple[list[np.ndarray], int]] = {}  # kept: tokens, number sampled
        self._begun: dict[int, list[tuple[np.ndarray, np.ndarray, int]]] = {}  # sampled by earlier versions
        self._finished: list[Turn] = []  # before the parameters changed, not returned yet

    def beside(self) -> "Sampler":
        """A sampler with the same parameters and none of the turns in flight; to be used until they change."""
        other = copy(self)
        other._clear()
        return other

    @property
    def stats(self) -> RolloutStats:
        """The cumulative cost of sampling."""
        return self._engine.stats

    @property
    def steps(self) -> int:
        """Decode steps so far."""
        return self._engine.stats.steps

    def set_params(self, params: Params, version: int) -> None:
        """Copies the parameters, which may be on any mesh, and samples with them from now on.

        Turns in flight go on with the new parameters, unless `in_flight` is "finish". With "recompute" their KV cache
        and that of kept episodes is prefilled again from their tokens; with "keep" it stays that of the parameters
        that computed it.

        Raises:
          RuntimeError: turns are in flight, and must finish.
        """
        if self._flying and self.in_flight == "finish":
            raise RuntimeError(f"the parameters can't change while {len(self._flying)} turns are in flight")
        if self.in_flight != "finish" and self._params is not None:
            self._pause()
        self._params = None  # frees its memory
        given = jax.tree.map(lambda x: x.sharding, params)
        is_new = given != self._given
        if is_new:
            own = shardings_of(self._trained, self._mesh)
            elsewhere = _devices(given) != [*self._mesh.devices.flat]
            move = make_move(self._trained, own if elsewhere else given, self._mesh)
            self._move = (lambda params: move(jax.device_put(params, own))) if elsewhere else move
        with parallel.use_mesh(self._mesh):
            self._params = jax.block_until_ready(self._move(params))
        self._version = version
        if is_new:
            self._given, self.received_bytes = given, received(self._trained, given, self._params)
        if self.in_flight == "finish":
            self._engine.forget()

    def _pause(self) -> None:
        """Takes what turns in flight have sampled, by the parameters of now."""
        with parallel.use_mesh(self._mesh):
            ended, sampled = self._engine.pause(self._params)
        self._finished += self._turns(ended)
        for request, tokens, logprobs in sampled:
            self._begun.setdefault(request.id, []).append((tokens, logprobs, self._version))
        if self.in_flight == "recompute":
            new = {request.id: tokens for request, tokens, _ in sampled}
            waiting = self._engine.withdraw()
            self._engine.submit([[_after(request, new.get(request.id)) for request in group] for group in waiting])

    def submit(self, requests: Sequence[Request]) -> None:
        """Queues requests.

        Raises:
          ValueError: a request is out of range, or its id is in flight, unknown or kept; then none is queued.
        """
        if self._params is None:
            raise RuntimeError("set_params must come before submit")
        ids = [request.id for request in requests]
        if len(set(ids)) < len(ids):
            raise ValueError("two requests have one id")
        for request in requests:
            self._check(request)
        groups: list[list[Request]] = []
        before = None
        for request in requests:
            whole = request
            if len(request.new):
                parts, drawn = self._episodes[request.id]
                whole = request._replace(prompt=np.concatenate([*parts, request.new]), new=NO_TOKENS, drawn=drawn)
            if request.keep:
                self._episodes[request.id] = [whole.prompt], whole.drawn
            else:
                self._episodes.pop(request.id, None)
            if before is whole.prompt and len(groups[-1]) < self.sampling.group_size:
                groups[-1].append(whole)
            else:
                groups.append([whole])
            before = whole.prompt
        self._flying.update(ids)
        self._engine.submit(groups)

    def ready(self) -> bool | None:
        """Dispatches waiting requests; True if the device has finished what `poll` would wait for first.

        None if nothing is in flight.
        """
        with parallel.use_mesh(self._mesh):
            return self._engine.ready(self._params) if self._flying else None

    def poll(self, steps: int | None = None) -> list[Turn]:
        """Decodes until at least one turn has finished, and returns the finished turns; [] if none is in flight.

        The next chunk or batch is dispatched before this returns.

        Args:
          steps: with slots, decode steps, rounded up to chunks, after which this returns if no turn has finished.
        """
        with parallel.use_mesh(self._mesh):
            if self._finished:
                self._engine.ready(self._params)
                turns, self._finished = self._finished, []
            else:
                turns = self._turns(self._engine.poll(self._params, steps)) if self._flying else []
        self._flying -= {turn.id for turn in turns}
        return turns

    def _turns(self, ended: Sequence[Ended]) -> list[Turn]:
        """Finished turns, with what earlier versions have sampled of them."""
        turns = []
        for request, tokens, logprobs, finish in ended:
            if begun := self._begun.pop(request.id, []):
                tokens = np.concatenate([*(x for x, _, _ in begun), tokens])
                logprobs = np.concatenate([*(x for _, x, _ in begun), logprobs])
            if request.keep and request.id in self._episodes:
                parts, drawn = self._episodes[request.id]
                self._episodes[request.id] = [*parts, tokens], drawn + len(tokens)
            earlier = tuple((len(x), version) for x, _, version in begun)
            turns.append(Turn(request.id, tokens, logprobs, finish, self._version, earlier))
        return turns

    @property
    def flying(self) -> frozenset[int]:
        """The ids of the episodes with a turn in flight."""
        return frozenset(self._flying)

    def state(self) -> tuple[dict[str, Any], list[jax.Array]]:
        """The turns in flight as JSON data, and their KV cache if it is kept.

        To be called after the parameters were set and before anything was sampled.
        """
        engine, arrays = self._engine.state()
        state = {
            "engine": engine,
            "finished": list(map(turn_to_json, self._finished)),
            "begun": [
                [i, [[text_of(tokens), text_of(logprobs), version] for tokens, logprobs, version in parts]]
                for i, parts in self._begun.items()
            ],
            "kept": [[i, text_of(np.concatenate(parts)), drawn] for i, (parts, drawn) in self._episodes.items()],
        }
        return state, narrowed(self._trained, self._mesh, arrays)

    def put_back(self, state: Mapping[str, Any], arrays_of: ArraysOf) -> None:
        """Goes on with the turns of `state`, with the same parameters.

        Args:
          state: JSON data.
          arrays_of: shapes with shardings -> the arrays of `state`.
        """
        self._finished = list(map(turn_from_json, state["finished"]))
        self._begun = {
            i: [(array_of(tokens), array_of(logprobs, "<f4"), version) for tokens, logprobs, version in parts]
            for i, parts in state["begun"]
        }
        self._episodes = {i: ([array_of(tokens)], drawn) for i, tokens, drawn in state["kept"]}
        with parallel.use_mesh(self._mesh):
            flying = self._engine.put_back(
                self._params, state["engine"], lambda shapes: widened(self._trained, self._mesh, shapes, arrays_of)
            )
        self._flying = flying | {turn.id for turn in self._finished}

    def release(self, ids: Sequence[int]) -> None:
        """Frees the KV cache of episodes that will not continue. Unknown ids are ignored.

        Raises:
          ValueError: a turn of one of them is in flight.
        """
        for i in ids:
            if i in self._flying:
                raise ValueError(f"a turn of episode {i} is in flight")
            self._episodes.pop(i, None)
        self._engine.release(ids)

    def _check(self, request: Request) -> None:
        """Raises ValueError if a request can't be served."""
        name, sampling = f"the request of episode {request.id}", self.sampling
        if request.id in self._flying:
            raise ValueError(f"{name}: a turn of it is in flight")
        if bool(len(request.prompt)) == bool(len(request.new)):
            raise ValueError(f"{name} needs either a prompt, or new tokens after its last turn")
        if len(request.new) and request.id not in self._episodes:
            raise ValueError(f"{name} continues an episode that was not kept (Request.keep)")
        if len(request.prompt) and request.id in self._episodes:
            raise ValueError(f"{name} has a prompt, but an episode of that id is kept; release it first")
        if len(request.new):
            length = sum(map(len, self._episodes[request.id][0])) + len(request.new)
        else:
            length = len(request.prompt)
            # An episode of several turns may begin with observations, as that of a role which has the second turn.
            most = self._window if request.drawn or request.keep else sampling.prompt_length
            if length > most:
                raise ValueError(f"{name}: its prompt has {length} tokens; 1 to {most} fit")
        if not 1 <= request.budget <= sampling.max_response_length:
            raise ValueError(f"{name}: its budget is {request.budget}, not from 1 to {sampling.max_response_length}")
        if length + request.budget > self._window:
            raise ValueError(f"{name}: {length} tokens and a budget of {request.budget} exceed {self._window}")
        if not request.temperature >= 0 or not isfinite(request.temperature):
            raise ValueError(f"{name}: its temperature is {request.temperature}, not a number from 0 up")
        if len(request.stop_tokens) > sampling.max_stop_tokens:
            raise ValueError(
                f"{name} has {len(request.stop_tokens)} stop tokens; {sampling.max_stop_tokens} fit "
                "(SamplingConfig.max_stop_tokens)"
            )


def _after(request: Request, tokens: np.ndarray | None) -> Request:
    """The request for the rest of a turn that has begun with these tokens."""
    if tokens is None:
        return request
    prompt, sampled = np.concatenate([request.prompt, tokens]), len(tokens)
    return request._replace(prompt=prompt, drawn=request.drawn + sampled, budget=request.budget - sampled)


def _devices(shardings: Params) -> list[jax.Device]:
    """The devices of parameters, in the order of their mesh."""
    first = jax.tree.leaves(shardings)[0]
    return [*first.mesh.devices.flat] if isinstance(first, NamedSharding) else [*first.device_set]
