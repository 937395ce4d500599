"""Continuous batching: a queue of turns over a fixed number of slots.

The device decodes chunk by chunk (`slots.decode`). Between two chunks the host collects finished turns and puts new
ones into the free slots; it returns finished turns only after dispatching the next chunk, so the caller handles them
while the device decodes.

Each prompt is prefilled once, in batches and in pieces of bounded size, and its row is copied into the slots of its
samples. One batch of prompts is prefilled ahead, a piece after each chunk of decoding; if slots would be idle, the
missing pieces are computed immediately.

The row of an episode that may continue is copied out of its slot into a pool when its turn has finished, so its next
turn costs only the prefill of the new tokens. Continued turns start before new prompts, because they hold memory. The
pool has one row per slot; when it is full, the oldest row is evicted, and the whole context of that episode is
prefilled again if it continues.

Attention covers the whole ring, so a chunk runs with the smallest of a few widths that fits the longest sequence.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial, wraps
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from rlvr_jax import parallel
from rlvr_jax.kernels.tiles import LANES
from rlvr_jax.policy import KeyValues, Params, PolicyConfig
from rlvr_jax.policy.layers import dense
from rlvr_jax.rollout import slots as device
from rlvr_jax.rollout.as_json import groups_from_json, groups_to_json
from rlvr_jax.rollout.requests import Request, RolloutStats, draws_of
from rlvr_jax.rollout.sampling import FINISH_REASONS, SamplingConfig
from rlvr_jax.rollout.slots import Emitted, Slots, Tail


class Functions(NamedTuple):
    """The compiled functions. Slots, the pool and rows that are appended to are donated."""

    empty_rows: Callable[[Params, int, int], KeyValues]
    empty_slots: Callable[[Params, int, Tail], Slots]
    append: Callable[..., KeyValues]
    pick: Callable[..., KeyValues]
    put: Callable[..., Slots]
    take: Callable[..., KeyValues]
    resize: Callable[[Slots, int], Slots]
    decode: Callable[..., tuple[Slots, Emitted]]


def array_shardings(config: PolicyConfig, mesh: Mesh, arrays: Any) -> Any:
    """The shardings of slots, rows and what is emitted: rows over the batch axes, and heads as in the projections."""
    batch = parallel.batch_sharding(mesh)
    heads = "tensor" if config.num_kv_heads % mesh.shape["tensor"] == 0 else None
    of_heads = NamedSharding(mesh, PartitionSpec(*batch.spec, heads))  # keys, values, and their scales
    of_rank = {0: parallel.replicated(mesh), 3: of_heads, 4: of_heads}
    return jax.tree.map(lambda x: of_rank.get(x.ndim, batch), arrays)


@cache  # engines of the same kind share compiled functions
def compiled_functions(config: PolicyConfig, sampling: SamplingConfig, mesh: Mesh) -> Functions:
    """The functions for parameters from `layout.make_move` on this mesh."""
    shardings = partial(array_shardings, config, mesh)

    def jit(function, *options, donate=(), static=()):
        @wraps(function)  # the program's name in profiles
        def constrained(*args):
            found = function(*options, *args)
            return jax.lax.with_sharding_constraint(found, shardings(found))

        return jax.jit(constrained, donate_argnums=donate, static_argnums=static)

    return Functions(
        empty_rows=jit(device.empty_rows, config, static=(1, 2)),
        empty_slots=jit(device.empty_slots, config, static=1),
        append=jit(device.append, config, donate=1, static=4),
        pick=jit(device.pick),
        put=jit(device.put, donate=0),
        take=jit(device.take, donate=1),
        resize=jit(device.resize, static=1),
        decode=jit(device.decode, config, sampling, donate=1),
    )


def ring_widths(sampling: SamplingConfig, mesh: parallel.AnyMesh) -> tuple[int, ...]:
    """A quarter, half and all of the columns that a chunk needs with the longest possible sequence."""
    # Between calls TPUs keep other widths in a layout that the kernel can't read: chunks would copy all keys, twice.
    alignment = LANES if parallel.devices_of(mesh)[0].platform == "tpu" else 8
    most = sampling.longest + sampling.chunk
    return tuple(sorted({-(-most // (part * alignment)) * alignment for part in (4, 2, 1)}))


Ended = tuple[Request, np.ndarray, np.ndarray, str]  # with tokens, log-probs and finish reason
Sampled = tuple[Request, np.ndarray, np.ndarray]  # with tokens and log-probs
ArraysOf = Callable[[Sequence[jax.ShapeDtypeStruct]], Sequence[jax.Array]]


@dataclass
class _Ready:
    """Prefilled rows.

    Attributes:
      rows: of contexts.
      starts: (row, request) of the turns that have yet to start from them.
    """

    rows: KeyValues
    starts: deque[tuple[int, Request]]


class Slotted:
    """The engine with slots.

    Raises:
      ValueError: the numbers in `sampling` don't go together.
    """

    def __init__(self, config: PolicyConfig, sampling: SamplingConfig, mesh: Mesh) -> None:
        shards, number = mesh.shape["data"] * mesh.shape["fsdp"], sampling.slots
        if number <= 0 or number % shards:
            raise ValueError(f"slots = {number} can't be divided among the {shards} shards of the mesh's batch axes")
        if sampling.chunk < 1 or sampling.prefill_chunk < 1:
            raise ValueError(f"chunk = {sampling.chunk} and prefill_chunk = {sampling.prefill_chunk} must be positive")
        self._sampling, self._number = sampling, number
        self._batch = -(-number // (sampling.group_size * shards)) * shards  # prompts that fill the slots once
        self._piece = min(sampling.prefill_chunk, sampling.prompt_length)
        self._window, self._widths = sampling.longest, ring_widths(sampling, mesh)
        self._functions = compiled_functions(config, sampling, mesh)
        self.stats = RolloutStats()

        self._groups: deque[list[Request]] = deque()  # with a new prompt
        self._longer: deque[Request] = deque()  # of continued episodes, or with a context longer than a prompt
        self._prefill: Iterator[_Ready | None] | None = None  # of the prompts in prefill
        self._prefilling: list[list[Request]] = []
        self._ready: deque[_Ready] = deque()
        self._serving: list[Request | None] = [None] * number
        self._held = np.zeros(number, int)  # tokens in each slot's columns
        self._parts: list[list[tuple[np.ndarray, ...]]] = [[] for _ in range(number)]  # sampled, by chunk
        self._emitted: Emitted | None = None  # of the chunk in flight
        self._slots: Slots | None = None
        self._width = 0
        self._pool: KeyValues | None = None
        self._kept: dict[int, tuple[int, int]] = {}  # episode -> its row in the pool, and the length of that
        self._spare = list(range(number))  # free rows of the pool

    def submit(self, groups: list[list[Request]]) -> None:
        for group in groups:
            if group[0].id in self._kept or len(group[0].prompt) > self._sampling.prompt_length:
                self._longer += group
            else:
                self._groups.append(group)

    def release(self, ids: Sequence[int]) -> None:
        for i in ids:
            if i in self._kept:
                self._spare.append(self._kept.pop(i)[0])
        if not self._kept and self._slots is None:
            self._pool = None

    def forget(self) -> None:
        """Drops all kept rows: they are of another policy."""
        self.release(list(self._kept))

    def pause(self, params: Params) -> tuple[list[Ended], list[Sampled]]:
        """Waits for the chunk in flight, and puts prompts whose turns have not started back into the queue.

        Returns the turns that finished, and what the others have sampled since they started or the last pause.
        """
        ended: list[Ended] = []
        if self._emitted is not None:
            ended, self._emitted = self._collect(params, jax.device_get(self._emitted)), None
        sampled = []
        for slot, request in enumerate(self._serving):
            if request is not None and self._parts[slot]:
                sampled.append((request, *_joined(self._parts[slot])))
                self._parts[slot] = []
        waiting = [request for ready in self._ready for _, request in ready.starts]
        self._groups.extendleft(reversed([*_by_prompt(waiting), *self._prefilling]))
        self._ready, self._prefill, self._prefilling = deque(), None, []
        self._slots = self._slots if any(self._serving) else None
        self._pool = self._pool if self._kept else None
        return ended, sampled

    def state(self) -> tuple[dict[str, Any], list[jax.Array]]:
        """All that the paused engine has yet to do, as JSON data, and its KV cache and slots."""
        serving = [[request] for request in self._serving if request is not None]
        state = {
            "waiting": groups_to_json([*([request] for request in self._longer), *self._groups]),
            "serving": groups_to_json(serving),
            "slots": [slot for slot, request in enumerate(self._serving) if request is not None],
            "width": self._width if serving else 0,
            "held": self._held.tolist(),
            "kept": [[id, *place] for id, place in self._kept.items()],
            "spare": self._spare,
        }
        return state, jax.tree.leaves((self._slots, self._pool))

    def put_back(self, params: Params, state: Mapping[str, Any], arrays_of: ArraysOf) -> set[int]:
        """Takes over a `state`, and returns the ids of its requests.

        Args:
          params: to sample with.
          state: JSON data.
          arrays_of: shapes with shardings -> the arrays.
        """
        serving, waiting = groups_from_json(state["serving"]), groups_from_json(state["waiting"])
        for slot, (request,) in zip(state["slots"], serving, strict=True):
            self._serving[slot] = request
        self._held, self._spare = np.array(state["held"], int), list(state["spare"])
        self._kept = {id: (row, length) for id, row, length in state["kept"]}
        if serving:
            self._width = state["width"]
            tail = Tail(self._padded([]), draws_of(self._serving, self._sampling.max_stop_tokens))
            self._slots = self._functions.empty_slots(params, self._width, tail)
        if self._kept:
            self._pool = self._functions.empty_rows(params, self._number, self._window)
        shapes, tree = jax.tree.flatten(jax.tree.map(_shape, (self._slots, self._pool)))
        if shapes:
            self._slots, self._pool = jax.tree.unflatten(tree, arrays_of(shapes))
        self.submit(waiting)
        return {request.id for group in (*serving, *waiting) for request in group}

    def withdraw(self) -> list[list[Request]]:
        """Empties the paused engine, and returns the requests that it has not served, those in slots first."""
        singles = [*(request for request in self._serving if request is not None), *self._longer]
        waiting = [*([request] for request in singles), *self._groups]
        self._longer, self._groups, self._slots = deque(), deque(), None
        self._serving, self._held = [None] * self._number, np.zeros(self._number, int)
        self.forget()
        self._spare = list(range(self._number))
        return waiting

    def ready(self, params: Params) -> bool:
        """Dispatches a chunk if none is in flight; True if the device has finished it, or there is none."""
        if self._emitted is None and not self._decode(params):
            return True
        return self._emitted.finish.is_ready()

    def poll(self, params: Params, steps: int | None = None) -> list[Ended]:
        """The turns that finish next; none if that takes more decode steps than these, rounded up to chunks."""
        before = self.stats.steps
        while True:
            if self._emitted is None and not self._decode(params):
                return []
            ended = self._collect(params, jax.device_get(self._emitted))
            self._emitted = None
            if not self._decode(params):
                self._slots, self._ready = None, deque()  # frees memory while idle
                self.release([])
            if ended or (steps is not None and self.stats.steps - before >= steps):
                return ended

    def _decode(self, params: Params) -> bool:
        """Dispatches the next chunk; False if there is none."""
        puts = self._assign(params)
        longest = max((held for held, request in zip(self._held, self._serving, strict=True) if request), default=None)
        if longest is None:
            return False
        width = next(width for width in self._widths if width >= longest + self._sampling.chunk)
        if self._slots is None:
            self._slots, self._width = self._functions.empty_slots(params, width, puts[0][-1]), width
        elif width != self._width:
            self._slots, self._width = self._functions.resize(self._slots, width), width
        for arguments in puts:
            self._slots = self._functions.put(self._slots, *arguments)
        self._slots, emitted = self._functions.decode(params, self._slots)
        self._emitted = parallel.readable(emitted)
        if len(self._ready) < 2:
            self._compute_piece(params)
        return True

    def _assign(self, params: Params) -> list[tuple[Any, ...]]:
        """Assigns the next turns to all free slots; returns the arguments of the calls of `put` that start them."""
        free, puts = [i for i, request in enumerate(self._serving) if request is None], []
        while free and (ready := self._next_rows(params, len(free))):
            starts = [ready.starts.popleft() for _ in range(min(len(free), len(ready.starts)))]
            target, free = free[: len(starts)], free[len(starts) :]
            requests = [request for _, request in starts]
            for slot, request in zip(target, requests, strict=True):
                self._serving[slot], self._held[slot] = request, len(request.prompt) - 1
            last = self._padded([int(request.prompt[-1]) for request in requests])
            idle = [None] * (self._number - len(starts))
            tail = Tail(last, draws_of(requests + idle, self._sampling.max_stop_tokens))
            source = self._padded([row for row, _ in starts])
            puts.append((ready.rows, np.int32(len(starts)), source, self._padded(target), tail))
        return puts

    def _padded(self, values: Sequence[int]) -> Int[np.ndarray, "slots"]:
        return np.pad(np.asarray(values, np.int32), (0, self._number - len(values)))

    def _collect(self, params: Params, emitted: Emitted) -> list[Ended]:
        """The turns that finished in a chunk; keeps the rows of episodes that may continue."""
        steps = int(emitted.steps)
        self.stats += RolloutStats(steps, steps * self._number, int(emitted.count.sum()))
        self._held += emitted.count
        ended, kept = [], []
        for slot, request in enumerate(self._serving):
            if request is None:
                continue
            count = emitted.count[slot]
            self._parts[slot].append((emitted.tokens[slot, :count], emitted.logprobs[slot, :count]))
            if emitted.finish[slot]:
                ended.append((request, *_joined(self._parts[slot]), FINISH_REASONS[int(emitted.finish[slot])]))
                self._parts[slot], self._serving[slot] = [], None
                if request.keep:
                    if not self._spare:  # whose whole context is then prefilled again
                        self.release([next(iter(self._kept))])
                    self._kept[request.id] = self._spare.pop(), int(self._held[slot])
                    kept.append((slot, self._kept[request.id][0]))
        if kept:
            if self._pool is None:
                self._pool = self._functions.empty_rows(params, self._number, self._window)
            slots, rows = (self._padded(x) for x in zip(*kept, strict=True))
            self._pool = self._functions.take(self._slots, self._pool, np.int32(len(kept)), slots, rows)
        return ended

    def _next_rows(self, params: Params, free: int) -> _Ready | None:
        """The rows that the next turns start from, at least one; None if no turn is waiting."""
        if self._longer:
            return self._continued(params, free)
        if self._ready and not self._ready[0].starts:
            self._ready.popleft()
        while not self._ready and self._compute_piece(params):
            pass  # the slots would be idle otherwise
        return self._ready[0] if self._ready else None

    def _continued(self, params: Params, free: int) -> _Ready:
        """Prefills the new tokens after kept rows, and the whole contexts of those that were not kept."""
        requests = [self._longer.popleft() for _ in range(min(len(self._longer), self._batch, free))]
        indices, held = np.full(self._batch, -1, np.int32), np.zeros(self._batch, int)
        for i, request in enumerate(requests):
            indices[i], held[i] = self._kept.get(request.id, (-1, 0))
        new = bool((indices < 0).all())
        if new:
            rows = self._functions.empty_rows(params, self._batch, self._window)
        else:
            rows = self._functions.pick(self._pool, indices)
        self.release([request.id for request in requests])
        contexts = [request.prompt[n:] for request, n in zip(requests, held, strict=False)]
        *_, rows = [rows, *self._append(params, rows, contexts, new)]
        return _Ready(rows, deque(enumerate(requests)))

    def _compute_piece(self, params: Params) -> bool:
        """Prefills a piece of the next prompts; False if none are waiting."""
        if self._prefill is None:
            if not self._groups:
                return False
            self._prefill = self._prompts(params)
        ready = next(self._prefill)
        if ready:
            self._ready.append(ready)
            self._prefill, self._prefilling = None, []
        return True

    def _prompts(self, params: Params) -> Iterator[_Ready | None]:
        """Prefills the prompts of the next groups, one piece per iteration; the last yields the rows."""
        groups = [self._groups.popleft() for _ in range(min(len(self._groups), self._batch))]
        self._prefilling = groups
        rows = self._functions.empty_rows(params, self._batch, self._sampling.prompt_length)
        for after in self._append(params, rows, [group[0].prompt for group in groups], new=True):
            rows = after
            yield None
        yield _Ready(rows, deque((row, request) for row, group in enumerate(groups) for request in group))

    def _append(
        self, params: Params, rows: KeyValues, contexts: Sequence[np.ndarray], new: bool
    ) -> Iterator[KeyValues]:
        """The rows after each piece of these contexts, without their last token (see `slots`).

        The first piece of `new` rows is computed as in training if that isn't done densely, too.
        """
        longest = max(map(len, contexts)) - 1
        alone = new and not dense(self._piece)
        for start in range(0, longest, self._piece):
            tokens, counts = np.zeros((self._batch, self._piece), np.int32), np.zeros(self._batch, np.int32)
            for row, context in enumerate(contexts):
                part = context[:-1][start : start + self._piece]
                tokens[row, : len(part)], counts[row] = part, len(part)
            rows = self._functions.append(params, rows, tokens, counts, alone and start == 0)
            self.stats += RolloutStats(prefill_tokens=int(counts.sum()))
            yield rows


def _joined(parts: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    return tuple(np.concatenate(x) for x in zip(*parts, strict=True))


def _shape(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _by_prompt(requests: Sequence[Request]) -> list[list[Request]]:
    """Consecutive requests with the same prompt, together."""
    return [list(group) for _, group in itertools.groupby(requests, lambda request: id(request.prompt))]
