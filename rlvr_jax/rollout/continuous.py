"""Continuous batching: a queue of samples over a fixed number of slots.

The device decodes chunk after chunk (`slots.decode`). Between two chunks the host takes what has ended and puts the
next samples into the free slots; it hands out what has ended only after the device has been given its next chunk, so
that whatever the caller does with it happens while the device decodes.

Each prompt is computed once, in batches and in pieces of bounded size, and its row is copied into the slot of each of
its samples. One batch of prompts is computed ahead, a piece behind each chunk of decoding; if slots would wait, the
pieces that are missing are computed at once.

Attention reads as many columns as the ring has, so a chunk runs on the narrowest of a few widths in which the longest
sequence has room.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from rlvr_jax.policy import KeyValues, Params, PolicyConfig
from rlvr_jax.rollout import slots as device
from rlvr_jax.rollout.sampler import FINISH_REASONS, SamplingConfig, prepare
from rlvr_jax.rollout.slots import Emitted, Slots, Tail
from rlvr_jax.rollout.trajectory import FinishReason, RolloutStats

Tokens = Int[np.ndarray, "_length"]

_ALIGNMENT = 8  # of the ring's widths


@dataclass(frozen=True)
class Response:
    """One finished sample, on the host; see `Trajectory` for the fields."""

    sample: int
    tokens: Int[np.ndarray, "time"]
    sampling_logprobs: Float[np.ndarray, "time"]
    policy_logprobs: Float[np.ndarray, "time"]
    finish_reason: FinishReason


Generate = Callable[..., Iterator[tuple[list[Response], RolloutStats]]]


class _Functions(NamedTuple):
    """The compiled functions. Slots, and rows that are appended to, are donated: they change in place."""

    prepare: Callable[[Params], Params]
    empty_rows: Callable[[Params], KeyValues]
    empty_slots: Callable[[Params, int], Slots]
    append: Callable[..., KeyValues]
    put: Callable[..., Slots]
    resize: Callable[[Slots, int], Slots]
    decode: Callable[..., tuple[Slots, Emitted]]


def _compile(
    config: PolicyConfig,
    sampling: SamplingConfig,
    prompt_length: int,
    prompts: int,
    param_shardings: Any,
    batch: NamedSharding,
) -> _Functions:
    mesh = batch.mesh
    # Key/value heads lie where those of the key projections do: [layers, width, kv, dim].
    heads = (*param_shardings["layers"]["attention"]["k"].spec, *[None] * 4)[2]
    of_rank = {
        0: NamedSharding(mesh, PartitionSpec()),
        4: NamedSharding(mesh, PartitionSpec(*batch.spec, heads)),
    }

    def jit(function, donate=(), static=()):
        def constrained(*args):
            return jax.tree.map(
                lambda x: jax.lax.with_sharding_constraint(x, of_rank.get(x.ndim, batch)), function(*args)
            )

        return jax.jit(constrained, donate_argnums=donate, static_argnums=static)

    return _Functions(
        prepare=jax.jit(partial(prepare, config)),
        empty_rows=jit(lambda params: device.empty_rows(config, params, prompts, prompt_length)),
        empty_slots=jit(lambda params, width: device.empty_slots(config, params, sampling.slots, width), static=1),
        append=jit(partial(device.append, config), donate=1),
        put=jit(device.put, donate=0),
        resize=jit(device.resize, static=1),
        decode=jit(partial(device.decode, config, sampling), donate=1),
    )


def ring_widths(longest: int, chunk: int) -> tuple[int, ...]:
    """A quarter of, half of and all the columns that a chunk on the longest possible sequence needs."""
    most = longest + chunk
    return tuple(sorted({-(-most // (part * _ALIGNMENT)) * _ALIGNMENT for part in (4, 2, 1)}))


def all_budgets(budgets: Sequence[int] | np.ndarray | None, samples: int, longest: int) -> Int[np.ndarray, "samples"]:
    """The token budget of each sample; None is `longest` for all.

    Raises:
      ValueError: there is not one for each sample, or they are not from 1 to `longest`.
    """
    budgets = np.full(samples, longest) if budgets is None else np.asarray(budgets)
    if budgets.shape != (samples,) or not ((budgets >= 1) & (budgets <= longest)).all():
        raise ValueError(f"budgets must be {samples} numbers from 1 to {longest} (max_response_length), one a sample")
    return budgets.astype(np.int32)


def _prefill(
    functions: _Functions, params: Params, prompts: Sequence[Tokens], batch: int, piece: int
) -> Iterator[tuple[int, "_Ready | None"]]:
    """Computes one piece of a batch of prompts at each step.

    Yields:
      How many tokens the piece had, and the batch when it is complete, else None.
    """
    for first in range(0, len(prompts), batch):
        members = [prompt[:-1] for prompt in prompts[first : first + batch]]  # see `slots` on the last token
        longest, rows = max(map(len, members)), functions.empty_rows(params)
        for start in range(0, max(longest, 1), piece):
            tokens, counts = np.zeros((batch, piece), np.int32), np.zeros(batch, np.int32)
            for row, prompt in enumerate(members):
                part = prompt[start : start + piece]
                tokens[row, : len(part)], counts[row] = part, len(part)
            rows = functions.append(params, rows, tokens, counts)
            done = start + piece >= longest
            yield int(counts.sum()), _Ready(first, first + len(members), rows) if done else None


class _Ready(NamedTuple):
    """Prompts `first` to `stop` of a call, computed."""

    first: int
    stop: int
    rows: KeyValues | None


@dataclass
class _Run:
    """The host's state of one call of `generate`.

    Attributes:
      prompts, budgets: of all samples.
      prefill: computes the next piece of the prompts at each step.
      ready: the batch of prompts whose samples are being started.
      ahead: the batch behind it, once it is computed.
      slots: on the device.
      width: of their ring.
      serving: the sample in each slot, -1 in free ones.
      held: how many tokens of its sequence each slot's columns hold.
      parts: what each slot's sample has drawn, chunk by chunk.
      queued: samples that have been started.
      stats: so far.
    """

    prompts: Sequence[Tokens]
    budgets: Int[np.ndarray, "samples"]
    prefill: Iterator[tuple[int, _Ready | None]]
    slots: Slots
    width: int
    serving: Int[np.ndarray, "slots"]
    held: Int[np.ndarray, "slots"]
    parts: list[list[tuple[np.ndarray, ...]]]
    ready: _Ready
    ahead: _Ready | None = None
    queued: int = 0
    stats: RolloutStats = field(default_factory=RolloutStats)


def _compute_piece(run: _Run) -> None:
    tokens, run.ahead = next(run.prefill, (0, None))
    run.stats = replace(run.stats, prefill_tokens=run.stats.prefill_tokens + tokens)


def _assign(run: _Run, group: int) -> list[tuple[Any, ...]]:
    """Gives the next samples to all free slots; returns the arguments of the calls of `put` that start them."""
    total, free, puts = len(run.budgets), np.flatnonzero(run.serving < 0), []
    while len(free) and run.queued < total:
        if run.queued == run.ready.stop * group:
            while run.ahead is None:  # the slots would wait for the rest
                _compute_piece(run)
            run.ready, run.ahead = run.ahead, None
        new = np.arange(run.queued, min(run.queued + len(free), run.ready.stop * group))
        target, free = free[: len(new)], free[len(new) :]
        run.queued += len(new)
        run.serving[target] = new
        run.held[target] = [len(run.prompts[i // group]) - 1 for i in new]

        def padded(values):
            return np.pad(np.asarray(values, np.int32), (0, len(run.serving) - len(new)))  # noqa: B023

        tail = Tail(
            last=padded([run.prompts[i // group][-1] for i in new]),
            sample=padded(new),
            drawn=padded(np.zeros(len(new))),
            budget=padded(run.budgets[new]),
        )
        source = padded(new // group - run.ready.first)
        puts.append((run.ready.rows, np.int32(len(new)), source, padded(target), tail))
    return puts


def _collect(run: _Run, emitted: Emitted) -> list[Response]:
    """Books what a chunk has drawn, and returns the samples that have ended."""
    stats, steps = run.stats, int(emitted.steps)
    run.stats = replace(
        stats,
        steps=stats.steps + steps,
        slot_steps=stats.slot_steps + steps * len(run.serving),
        active_slot_steps=stats.active_slot_steps + int(emitted.count.sum()),
    )
    run.held += emitted.count
    responses = []
    for slot in np.flatnonzero(run.serving >= 0):
        count = emitted.count[slot]
        drawn = (emitted.tokens, emitted.sampling_logprobs, emitted.policy_logprobs)
        run.parts[slot].append(tuple(x[slot, :count] for x in drawn))
        if emitted.finish[slot]:
            arrays = (np.concatenate(x) for x in zip(*run.parts[slot], strict=True))
            responses.append(Response(int(run.serving[slot]), *arrays, FINISH_REASONS[int(emitted.finish[slot])]))
            run.parts[slot], run.serving[slot] = [], -1
    return responses


def make_generate(
    config: PolicyConfig,
    sampling: SamplingConfig,
    prompt_length: int,
    param_shardings: Any,
    batch_sharding: NamedSharding,
) -> Generate:
    """A function that samples `sampling.group_size` responses to each prompt over `sampling.slots` slots.

    Args:
      config: the policy's shape.
      sampling: see `SamplingConfig`; `slots` is positive.
      prompt_length: of the longest prompt.
      param_shardings: of the parameters that it will be given.
      batch_sharding: over which slots are split.

    Returns:
      A generator function `(params, prompts, key, temperature=1.0, budgets=None, refill=True)` whose items are
      (responses that have ended, `RolloutStats` so far). `prompts` are arrays of token ids, none empty or longer than
      `prompt_length`; sample `i` answers prompt `i // group_size` from the random stream `fold_in(key, i)`, and has at
      most `budgets[i]` tokens. With `refill` False no slot is refilled before all are free: what refilling is measured
      against.

    Raises:
      ValueError: the numbers in `sampling` don't go together.
    """
    names, sizes = batch_sharding.spec[0] or (), batch_sharding.mesh.shape
    shards = int(np.prod([sizes[name] for name in ((names,) if isinstance(names, str) else names)]))
    if sampling.slots <= 0 or sampling.slots % shards:
        raise ValueError(f"slots = {sampling.slots} can't be divided among the {shards} parts of the mesh's batch axes")
    if sampling.chunk < 1 or sampling.prefill_chunk < 1:
        raise ValueError(f"chunk = {sampling.chunk} and prefill_chunk = {sampling.prefill_chunk} must be positive")
    batch = -(-sampling.slots // (sampling.group_size * shards)) * shards  # prompts for one filling of the slots
    functions = _compile(config, sampling, prompt_length, batch, param_shardings, batch_sharding)
    piece = min(sampling.prefill_chunk, prompt_length)
    widths = ring_widths(prompt_length + sampling.max_response_length, sampling.chunk)

    def generate(params, prompts, key, temperature=1.0, budgets=None, refill=True):
        total = len(prompts) * sampling.group_size
        budgets = all_budgets(budgets, total, sampling.max_response_length)
        params = functions.prepare(params)
        zeros = np.zeros(sampling.slots, int)
        run = _Run(
            prompts=prompts,
            budgets=budgets,
            prefill=_prefill(functions, params, prompts, batch, piece),
            slots=functions.empty_slots(params, widths[0]),
            width=widths[0],
            serving=zeros - 1,
            held=zeros,
            parts=[[] for _ in zeros],
            ready=_Ready(0, 0, None),
        )
        ended: list[Response] = []
        while run.queued < total or (run.serving >= 0).any():
            puts = _assign(run, sampling.group_size) if refill or (run.serving < 0).all() else []
            longest = run.held[run.serving >= 0].max()
            width = next(width for width in widths if width >= longest + sampling.chunk)
            if width != run.width:
                run.slots, run.width = functions.resize(run.slots, width), width
            for arguments in puts:
                run.slots = functions.put(run.slots, *arguments)
            run.slots, emitted = functions.decode(params, run.slots, key, jnp.float32(temperature))
            if run.ahead is None:
                _compute_piece(run)
            if ended:
                yield ended, run.stats
            ended = _collect(run, jax.device_get(emitted))
        if ended:
            yield ended, run.stats

    return generate
