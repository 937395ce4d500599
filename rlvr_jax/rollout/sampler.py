"""The sampler: a group of responses to each of a batch of prompts, in one compiled function.

Every prompt runs through the policy once and its keys and values are shared by the samples of its group. Decoding is
one loop that ends when every sequence has ended. A sample's randomness is `fold_in(fold_in(key, sample id), t)` for its
t-th token, so its tokens do not depend on who else is in the batch.
"""

from dataclasses import dataclass
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from rlvr_jax import policy
from rlvr_jax.policy import Cache, Params, PolicyConfig
from rlvr_jax.rollout.sampling import draw_token

FINISH_REASONS = {1: "stop", 2: "length"}
_STOP, _LENGTH = FINISH_REASONS


@dataclass(frozen=True)
class SamplingConfig:
    """The settings that are fixed when the sampler is compiled.

    Attributes:
      group_size: samples for each prompt.
      max_response_length: tokens a response may have, its stop token included.
      stop_tokens: ids that end a response.
      pad_token: id that fills the places after a response.
      top_k, top_p: filters of the sampling distribution; 0 and 1 switch them off.
      policy_temperature: temperature of the distribution whose log-probs are reported as the policy's.
      slots: sequences that decode at a time, with a free slot refilled while the others go on (`slots.py`,
        `continuous.py`); 0 decodes a whole batch at a time, until its longest response has ended (`sample`). Slots
        pay where lengths differ, but hold a copy of the prompt's keys and values each, where `sample` holds and reads
        one for a group: for long prompts with responses of like length, 0 is better.
      chunk: with slots, tokens that each slot decodes between two visits of the host.
      prefill_chunk: with slots, prompt tokens of one sequence that are computed at a time, at most.
    """

    group_size: int
    max_response_length: int
    stop_tokens: tuple[int, ...]
    pad_token: int = 0
    top_k: int = 0
    top_p: float = 1.0
    policy_temperature: float = 1.0
    slots: int = 0
    chunk: int = 16
    prefill_chunk: int = 256


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Samples:
    """Responses; sample `i` answers prompt `i // group_size`.

    Attributes:
      tokens: the response with its stop token, padded on the right.
      sampling_logprobs: of each token under the distribution it was drawn from (temperature and filters applied).
      policy_logprobs: of each token under the policy.
      lengths: number of tokens, the stop token included.
      finish: a key of `FINISH_REASONS`.
    """

    tokens: Int[Array, "samples length"]
    sampling_logprobs: Float[Array, "samples length"]
    policy_logprobs: Float[Array, "samples length"]
    lengths: Int[Array, "samples"]
    finish: Int[Array, "samples"]


def prompt_positions(
    mask: Bool[Array, "batch length"],
) -> tuple[Int[Array, "batch length"], Int[Array, "batch length"]]:
    """Positions and segment ids of left-padded prompts, whose real tokens `mask` marks."""
    return jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0), mask.astype(jnp.int32)


def prepare(config: PolicyConfig, params: Params) -> Params:
    """The parameters as decoding reads them: layer by layer, and cast to the type they are computed in.

    Decoding reads every weight for every token, so neither the slicing nor the cast may stay in its loop. `forward`
    would cast the same leaves before using them; the last norm it takes as it is.
    """
    cast = jax.tree.map(lambda x: x.astype(config.dtype), {k: v for k, v in params.items() if k != "norm"})
    return policy.unstack(params | cast)


def draw_next(
    sampling: SamplingConfig,
    sample_keys: Key[Array, "batch"],
    index: Int[Array, "*batch"],
    logits: Float[Array, "batch vocab"],
    temperature: Float[Array, ""],
) -> tuple[Int[Array, "batch"], Float[Array, "batch"], Float[Array, "batch"], Bool[Array, "batch"]]:
    """Token number `index` of each sample, its log-probs under sampler and policy, and whether it is a stop token."""
    keys = jax.vmap(jax.random.fold_in)(sample_keys, jnp.broadcast_to(index, sample_keys.shape))
    drawn = draw_token(keys, logits, temperature, sampling.top_k, sampling.top_p, sampling.policy_temperature)
    return *drawn, jnp.isin(drawn[0], jnp.asarray(sampling.stop_tokens, jnp.int32))


def finish_of(
    stops: Bool[Array, "batch"], lengths: Int[Array, "*batch"], budgets: Int[Array, "batch"]
) -> Int[Array, "batch"]:
    """The key of `FINISH_REASONS` of responses whose last token is or is no stop token; 0 if they go on."""
    return jnp.where(stops, _STOP, jnp.where(lengths >= budgets, _LENGTH, 0)).astype(jnp.int32)


def sample(
    config: PolicyConfig,
    sampling: SamplingConfig,
    params: Params,
    prompts: Int[Array, "prompts length"],
    prompt_mask: Bool[Array, "prompts length"],
    sample_ids: Int[Array, "samples"],
    key: Key[Array, ""],
    temperature: Float[Array, ""],
    budgets: Int[Array, "samples"] | None = None,
) -> Samples:
    """Samples `group_size` responses to each prompt; meant to be jitted with the first two arguments static.

    Args:
      config: the policy's shape.
      sampling: see `SamplingConfig`.
      params: the policy's parameters.
      prompts: token ids, padded on the left.
      prompt_mask: True on real tokens.
      sample_ids: a number for each sample, which names its random stream; sample `i` belongs to prompt
        `i // group_size`.
      key: the root of the random streams.
      temperature: of the sampling distribution; 0 is greedy.
      budgets: tokens that each sample may have, from 1 to `max_response_length`; None is the latter for all.
    """
    params = prepare(config, params)
    (num_prompts, prompt_length), group, length = prompts.shape, sampling.group_size, sampling.max_response_length
    num_samples = num_prompts * group
    sample_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, sample_ids)
    if budgets is None:
        budgets = jnp.full(num_samples, length, jnp.int32)

    def draw(t, logits):
        return draw_next(sampling, sample_keys, t, logits, temperature)

    # Prefill: each prompt once.
    positions, segment_ids = prompt_positions(prompt_mask)
    prefix = policy.empty_key_values(config, params, num_prompts, prompt_length)
    hidden, filled = policy.forward(config, params, prompts, positions, segment_ids, Cache(prefix))
    logits = jnp.repeat(policy.head_logits(config, params, hidden[:, -1]), group, axis=0)
    prompt_lengths = jnp.repeat(jnp.sum(prompt_mask, axis=1), group)

    first, first_sampling_logprob, first_policy_logprob, stops = draw(jnp.int32(0), logits)
    column = lambda x: jnp.zeros((num_samples, length), x.dtype).at[:, 0].set(x)  # noqa: E731
    samples = Samples(
        tokens=jnp.full((num_samples, length), sampling.pad_token, jnp.int32).at[:, 0].set(first),
        sampling_logprobs=column(first_sampling_logprob),
        policy_logprobs=column(first_policy_logprob),
        lengths=jnp.ones(num_samples, jnp.int32),
        finish=finish_of(stops, jnp.int32(1), budgets),
    )
    own = policy.empty_key_values(config, params, num_samples, max(length - 1, 1), one_by_one=True)

    def unfinished(state):
        t, _, _, samples = state
        return (t < length) & jnp.any(samples.finish == 0)

    def decode(state):
        t, last, own, samples = state
        active = samples.finish == 0
        positions = (prompt_lengths + t - 1)[:, None]
        cache = Cache(own, filled.own)
        hidden, cache = policy.forward(config, params, last[:, None], positions, jnp.ones_like(positions), cache)
        logits = policy.head_logits(config, params, hidden[:, 0])
        token, sampling_logprob, policy_logprob, stops = draw(t, logits)
        token = jnp.where(active, token, sampling.pad_token)

        def write(x, new):
            return jax.lax.dynamic_update_slice_in_dim(x, jnp.where(active, new, 0)[:, None], t, axis=1)

        samples = Samples(
            tokens=jax.lax.dynamic_update_slice_in_dim(samples.tokens, token[:, None], t, axis=1),
            sampling_logprobs=write(samples.sampling_logprobs, sampling_logprob),
            policy_logprobs=write(samples.policy_logprobs, policy_logprob),
            lengths=samples.lengths + active,
            finish=jnp.where(active, finish_of(stops, t + 1, budgets), samples.finish),
        )
        return t + 1, token, cache.own, samples

    return jax.lax.while_loop(unfinished, decode, (jnp.int32(1), first, own, samples))[-1]
