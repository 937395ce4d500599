"""Sampling the next token of each sequence: filters, log-probabilities, and inverse-CDF sampling."""

from dataclasses import dataclass
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Key, Shaped, UInt32

MASKED = -1e30
FINISH_REASONS = {1: "stop", 2: "length"}
_STOP, _LENGTH = FINISH_REASONS


@dataclass(frozen=True)
class SamplingConfig:
    """The settings that are fixed when a sampler is compiled.

    Attributes:
      prompt_length: maximum tokens of the prompt of an episode's first turn.
      max_response_length: maximum tokens of a turn, stop token included.
      group_size: samples that share the KV cache of their prompt; larger groups are split.
      batch_size: prompts per static batch.
      memory: bytes on one device for prefill and decoding of a static batch, which limits the number of smaller groups
        in a batch; 0 for no limit.
      window: maximum tokens of an episode; 0 stands for `prompt_length + max_response_length`.
      top_k, top_p: filters of the sampling distribution; 0 and 1 switch them off.
      policy_temperature: temperature of the distribution whose log-probs are reported.
      filtered_logprobs: whether that distribution is the filtered one, from which tokens are drawn.
      max_stop_tokens: of a request.
      slots: continuous batching with this many concurrent sequences (`slots.py`, `continuous.py`); 0 decodes static
        batches until their longest turn has finished (`batches.py`). Slots help if lengths vary, but each holds a copy
        of its prompt's KV cache, where a static batch stores and reads one per group: for long prompts with responses
        of similar length, 0 is better.
      chunk: with slots, decode steps between host syncs.
      prefill_chunk: with slots, maximum number of tokens of one context prefilled at a time.
    """

    prompt_length: int
    max_response_length: int
    group_size: int = 1
    batch_size: int = 1
    memory: int = 0
    window: int = 0
    top_k: int = 0
    top_p: float = 1.0
    policy_temperature: float = 1.0
    filtered_logprobs: bool = False
    max_stop_tokens: int = 8
    slots: int = 0
    chunk: int = 16
    prefill_chunk: int = 256

    @property
    def longest(self) -> int:
        """Maximum tokens of an episode."""
        return self.window or self.prompt_length + self.max_response_length


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Draws:
    """The sampling state of each sequence.

    Attributes:
      key: raw data of the episode's random key.
      drawn: number of tokens sampled in the episode so far.
      limit: `drawn` at the end of the turn, without a stop token.
      temperature: 0 is greedy.
      stop_tokens: ids that end the turn, padded with -1.
    """

    key: UInt32[Array, "batch words"]
    drawn: Int[Array, "batch"]
    limit: Int[Array, "batch"]
    temperature: Float[Array, "batch"]
    stop_tokens: Int[Array, "batch stops"]


def filter_logits(logits: Float[Array, "batch vocab"], top_k: int, top_p: float) -> Float[Array, "batch vocab"]:
    """Masks all but the `top_k` likeliest tokens, then all but the smallest set of mass at least `top_p` of those.

    `top_k` 0 and `top_p` 1 switch the filters off; ties with the last kept token are kept. Nucleus
    sampling: Holtzman et al. 2020 (arXiv:1904.09751), eq. 2.
    """
    vocab = logits.shape[-1]
    if 0 < top_k < vocab:
        threshold = jax.lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits >= threshold, logits, MASKED)
    if top_p < 1:
        descending = jnp.sort(logits, axis=-1, descending=True)
        mass = jax.nn.softmax(descending, axis=-1)
        mass_before = jnp.cumsum(mass, axis=-1) - mass
        last = jnp.maximum(jnp.sum(mass_before < top_p, axis=-1, keepdims=True), 1) - 1
        threshold = jnp.take_along_axis(descending, last, axis=-1)
        logits = jnp.where(logits >= threshold, logits, MASKED)
    return logits


def inverse_cdf(weights: Float[Array, "batch vocab"], uniform: Float[Array, "batch"]) -> Int[Array, "batch"]:
    """The first token whose cumulative weight exceeds `uniform` times the total: one random number per draw.

    The search is over about sqrt(vocab) blocks and then inside of one, so only that many sums are kept. A token with
    weight 0 is never drawn.
    """
    batch, vocab = weights.shape
    size = max(1, round(vocab**0.5))
    count = -(-vocab // size)
    blocks = jnp.pad(weights, ((0, 0), (0, count * size - vocab))).reshape(batch, count, size)
    totals = jnp.sum(blocks, axis=-1)
    ends = jnp.cumsum(totals, axis=-1)
    target = uniform * ends[:, -1]
    block = _first_beyond(totals, ends, target)[:, None]
    start = jnp.take_along_axis(jnp.pad(ends, ((0, 0), (1, 0))), block, axis=-1)[:, 0]
    inside = jnp.take_along_axis(blocks, block[:, :, None], axis=1)[:, 0]
    return block[:, 0] * size + _first_beyond(inside, jnp.cumsum(inside, axis=-1), target - start)


def _first_beyond(
    weights: Float[Array, "batch n"], ends: Float[Array, "batch n"], target: Float[Array, "batch"]
) -> Int[Array, "batch"]:
    """The first index with positive weight whose cumulative weight `ends` exceeds `target`.

    Because of rounding, an end may exceed the target at an index with weight 0, which is therefore skipped, or no end
    may: then it is the last index with positive weight.
    """
    places = jnp.arange(weights.shape[-1], dtype=jnp.int32)
    positive = weights > 0
    last = jnp.max(jnp.where(positive, places, 0), axis=-1, keepdims=True)
    return jnp.min(jnp.where(positive & (ends > target[:, None]), places, last), axis=-1)


def first_largest(x: Shaped[Array, "batch n"]) -> Int[Array, "batch"]:
    """The first index of each row's largest entry, or the last index of a row with a NaN.

    Not `jnp.argmax`: fused with a broadcast of the rows, such as a prompt's logits repeated for its group, its
    reduction over pairs keeps LLVM's loop vectoriser busy for minutes at some row lengths (18 to 27).
    """
    places = jnp.arange(x.shape[-1], dtype=jnp.int32)
    return jnp.min(jnp.where(x == jnp.max(x, axis=-1, keepdims=True), places, places[-1]), axis=-1)


def draw_token(
    keys: Key[Array, "batch"],
    logits: Float[Array, "batch vocab"],
    temperature: Float[Array, "batch"],
    top_k: int,
    top_p: float,
    policy_temperature: float,
    filtered_logprobs: bool = False,
) -> tuple[Int[Array, "batch"], Float[Array, "batch"]]:
    """Draws one token for each row.

    Args:
      keys: one per row, used once.
      logits: of the next token.
      temperature: of each row; 0 is greedy.
      top_k, top_p: see `filter_logits`.
      policy_temperature: the policy's own distribution is softmax(logits / policy_temperature).
      filtered_logprobs: whether log-probs are those of that distribution after the filters.

    Returns:
      The tokens and their log-probabilities under the policy (nats).
    """
    greedy = temperature == 0
    scaled = filter_logits(logits / jnp.where(greedy, 1.0, temperature)[:, None], top_k, top_p)
    weights = jnp.exp(scaled - jnp.max(scaled, axis=-1, keepdims=True))
    uniform = jax.vmap(jax.random.uniform)(keys)
    tokens = jnp.where(greedy, first_largest(logits), inverse_cdf(weights, uniform))
    x = logits / policy_temperature
    if filtered_logprobs:
        x = filter_logits(x, top_k, top_p)
    x -= jnp.max(x, axis=-1, keepdims=True)  # as in `policy.logprobs_and_entropy`
    chosen = jnp.take_along_axis(x, tokens[:, None], axis=-1)[:, 0]
    return tokens, chosen - jnp.log(jnp.sum(jnp.exp(x), axis=-1))


def draw_next(
    sampling: SamplingConfig, draws: Draws, logits: Float[Array, "batch vocab"]
) -> tuple[Int[Array, "batch"], Float[Array, "batch"], Int[Array, "batch"]]:
    """The next token of each sequence, its log-prob under the policy, and its finish reason.

    The last is a key of `FINISH_REASONS`, or 0 if the turn continues.
    """
    keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(draws.key), draws.drawn)
    filters = sampling.top_k, sampling.top_p
    token, logprob = draw_token(
        keys, logits, draws.temperature, *filters, sampling.policy_temperature, sampling.filtered_logprobs
    )
    stops = jnp.any(token[:, None] == draws.stop_tokens, axis=1)
    finish = jnp.where(stops, _STOP, jnp.where(draws.drawn + 1 >= draws.limit, _LENGTH, 0))
    return token, logprob, finish.astype(jnp.int32)
