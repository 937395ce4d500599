"""Static batches: all turns of a batch start together, in one compiled function that ends with the longest turn.

A prompt is prefilled once, and its KV cache is shared by the samples of its group.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from rlvr_jax import parallel, policy
from rlvr_jax.policy import Cache, KeyValues, Params, PolicyConfig
from rlvr_jax.rollout.memory import prompt_bytes
from rlvr_jax.rollout.requests import Request, RolloutStats, draws_of
from rlvr_jax.rollout.sampling import FINISH_REASONS, Draws, SamplingConfig, draw_next


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Samples:
    """Turns; sample `i` answers prompt `i // group`.

    Attributes:
      tokens: of the turn, stop token included; 0 after it.
      logprobs: of each token under the policy.
      lengths: number of tokens.
      finish: a key of `FINISH_REASONS`.
    """

    tokens: Int[Array, "samples length"]
    logprobs: Float[Array, "samples length"]
    lengths: Int[Array, "samples"]
    finish: Int[Array, "samples"]


def pad_prompts(
    prompts: Sequence[Sequence[int] | Int[np.ndarray, "_length"]], length: int
) -> tuple[Int[np.ndarray, "prompts length"], Bool[np.ndarray, "prompts length"]]:
    """Prompts of at most `length` tokens, left-padded with 0, and the mask of their real tokens."""
    tokens = np.zeros((len(prompts), length), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, length - len(prompt) :] = prompt
    lengths = np.array([len(prompt) for prompt in prompts])
    return tokens, np.arange(length) >= length - lengths[:, None]


def prompt_positions(
    mask: Bool[Array, "batch length"],
) -> tuple[Int[Array, "batch length"], Int[Array, "batch length"]]:
    """Positions and segment ids of left-padded prompts with the mask of their real tokens."""
    return jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0), mask.astype(jnp.int32)


def prefill(
    config: PolicyConfig, params: Params, prompts: Int[Array, "prompts length"], mask: Bool[Array, "prompts length"]
) -> tuple[Float[Array, "prompts vocab"], KeyValues]:
    """The logits of the first token after each prompt, and the prompts' KV cache; arguments as of `sample`."""
    cache = Cache(policy.empty_key_values(config, params, *prompts.shape), empty=True)
    hidden, cache = policy.forward(config, params, prompts, *prompt_positions(mask), cache)
    return policy.head_logits(config, params, hidden[:, -1]), cache.own


@partial(jax.jit, static_argnums=(0, 1))
def sample(
    config: PolicyConfig,
    sampling: SamplingConfig,
    params: Params,
    prompts: Int[Array, "prompts length"],
    prompt_mask: Bool[Array, "prompts length"],
    draws: Draws,
) -> Samples:
    """Samples one or several turns for each prompt.

    Args:
      config: the policy's architecture.
      sampling: see `SamplingConfig`.
      params: from `layout.prepare`.
      prompts: token ids, padded on the left.
      prompt_mask: True on real tokens.
      draws: of each sample, the same number of consecutive samples for each prompt.
    """
    num_samples, length = draws.drawn.shape[0], sampling.max_response_length
    group = num_samples // prompts.shape[0]
    logits, prefix = prefill(config, params, prompts, prompt_mask)
    logits = jnp.repeat(logits, group, axis=0)
    prompt_lengths = jnp.repeat(jnp.sum(prompt_mask, axis=1), group)

    first, logprob, finish = draw_next(sampling, draws, logits)
    column = lambda x: jnp.zeros((num_samples, length), x.dtype).at[:, 0].set(x)  # noqa: E731
    samples = Samples(column(first), column(logprob), jnp.ones(num_samples, jnp.int32), finish)

    def unfinished(width, state):
        t, _, _, samples = state
        return (t < length) & (t <= width) & jnp.any(samples.finish == 0)

    def decode(state):
        t, last, own, samples = state
        active = samples.finish == 0
        positions = (prompt_lengths + t - 1)[:, None]
        cache = Cache(own, prefix)
        hidden, cache = policy.forward(config, params, last[:, None], positions, jnp.ones_like(positions), cache)
        logits = policy.head_logits(config, params, hidden[:, 0])
        token, logprob, finish = draw_next(sampling, draws.replace(drawn=draws.drawn + t), logits)
        token = jnp.where(active, token, 0)

        def write(x, new):
            return jax.lax.dynamic_update_slice_in_dim(x, jnp.where(active, new, 0)[:, None], t, axis=1)

        samples = Samples(
            tokens=write(samples.tokens, token),
            logprobs=write(samples.logprobs, logprob),
            lengths=samples.lengths + active,
            finish=jnp.where(active, finish, samples.finish),
        )
        return t + 1, token, cache.own, samples

    t, own = jnp.int32(1), None
    for width in policy.cache_widths(max(length - 1, 1)):
        empty = policy.empty_key_values(config, params, num_samples, width, one_by_one=True)
        own = empty if own is None else policy.widened(own, empty)
        t, first, own, samples = jax.lax.while_loop(partial(unfinished, width), decode, (t, first, own, samples))
    return samples


def prompts_per_batch(
    config: PolicyConfig, sampling: SamplingConfig, mesh: jax.sharding.Mesh, number: int, size: int, length: int
) -> int:
    """Prompts of a batch: as many as memory is planned for, or fewer if all fit into a smaller batch.

    Args:
      config: the policy's architecture.
      sampling: see `SamplingConfig`.
      mesh: that samples.
      number: of prompts that are waiting.
      size: samples of each.
      length: of the prompts, padding included.
    """
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    most = sampling.batch_size * sampling.group_size // size
    if sampling.memory:
        place = mesh.shape["tensor"], parallel.devices_of(mesh)[0].platform
        each = prompt_bytes(config, length, sampling.max_response_length, size, *place)
        most = min(most, sampling.memory // each * shards)
    prompts = max(1, most // shards) * shards
    while prompts % (2 * shards) == 0 and prompts // 2 >= number:
        prompts //= 2
    return prompts


_IN_FLIGHT = 2  # batches: the device samples one while the host handles the one before


class Batches:
    """The engine without slots: waiting requests are dispatched and returned batch by batch.

    The results of at most two batches are on the device, however many requests are waiting.
    """

    def __init__(self, config: PolicyConfig, sampling: SamplingConfig, mesh: jax.sharding.Mesh) -> None:
        self._sample = partial(sample, config, sampling)
        self._config, self._sampling = config, sampling
        self._sharding = parallel.batch_sharding(mesh)
        self._shards = mesh.shape["data"] * mesh.shape["fsdp"]
        if sampling.batch_size % self._shards:
            raise ValueError(
                f"batch_size = {sampling.batch_size} can't be divided among the {self._shards} parts of the mesh's "
                "batch axes"
            )
        self._groups: list[list[Request]] = []
        self._waiting: deque[tuple[list[list[Request]], int, int, int]] = deque()  # batches: groups and sizes
        self._flying: deque[tuple[list[Request | None], int, Samples]] = deque()
        self.stats = RolloutStats()

    def submit(self, groups: list[list[Request]]) -> None:
        self._groups += groups

    def release(self, ids: Sequence[int]) -> None:
        """Nothing is kept on the device."""

    def forget(self) -> None:
        """Nothing is kept on the device."""

    def ready(self, params: Params) -> bool:
        """Dispatches waiting requests; True if the device has finished the next batch."""
        self._dispatch(params)
        return self._flying[0][-1].finish.is_ready()

    def poll(self, params: Params, steps: int | None = None) -> list[tuple[Request, np.ndarray, np.ndarray, str]]:
        """The turns of the next batch, whatever its steps; the one after it is dispatched before the host waits."""
        self._dispatch(params)
        if not self._flying:
            return []
        rows, prefill, samples = self._flying.popleft()
        samples = jax.device_get(samples)
        lengths, reasons = samples.lengths.tolist(), [FINISH_REASONS[i] for i in samples.finish.tolist()]
        ended = [
            (request, tokens[:length], logprobs[:length], reason)
            for request, tokens, logprobs, length, reason in zip(
                rows, samples.tokens, samples.logprobs, lengths, reasons, strict=True
            )
            if request is not None
        ]
        steps = max(lengths)
        self.stats += RolloutStats(steps, steps * len(rows), sum(len(tokens) for _, tokens, _, _ in ended), prefill)
        return ended

    def _dispatch(self, params: Params) -> None:
        """Dispatches batches until two are in flight."""
        if self._groups:
            self._waiting += self._divided(self._groups)
            self._groups = []
        while self._waiting and len(self._flying) < _IN_FLIGHT:
            groups, prompts, size, length = self._waiting.popleft()
            rows = [request for group in groups for request in group + [None] * (size - len(group))]
            rows += [None] * (prompts * size - len(rows))
            contexts = [group[0].prompt for group in groups]
            tokens, mask = pad_prompts(contexts + contexts[:1] * (prompts - len(contexts)), length)
            draws = draws_of(rows, self._sampling.max_stop_tokens)
            inputs = parallel.put((tokens, mask, draws), self._sharding)
            samples = parallel.readable(self._sample(params, *inputs))
            self._flying.append((rows, sum(map(len, contexts)), samples))

    def _divided(self, groups: list[list[Request]]) -> Iterator[tuple[list[list[Request]], int, int, int]]:
        """Batches of groups, each with its number of prompts, samples of a prompt, and length of the prompts."""
        size, number = max(map(len, groups)), len(groups)
        length = self._sampling.prompt_length
        while length < max(len(group[0].prompt) for group in groups):
            length *= 2
        prompts = prompts_per_batch(self._config, self._sampling, self._sharding.mesh, number, size, length)
        for start in range(0, number, prompts):
            yield groups[start : start + prompts], prompts, size, length
