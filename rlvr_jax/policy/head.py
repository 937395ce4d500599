"""From hidden states to logits, log-probabilities and entropies, in float32."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.policy.model import Params, forward


def head_logits(config: PolicyConfig, params: Params, hidden: Float[Array, "*n width"]) -> Float[Array, "*n vocab"]:
    """Float32 logits of final hidden states."""
    table = params.get("head", params["embed"]).astype(config.dtype)
    return jnp.einsum("...w,vw->...v", hidden, table, preferred_element_type=jnp.float32)


def logits(config: PolicyConfig, params: Params, tokens: Int[Array, "batch time"]) -> Float[Array, "batch time vocab"]:
    """Float32 logits of whole sequences without padding: the plain entry for notebooks and tests."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden, _ = forward(config, params, tokens, positions, jnp.ones_like(tokens))
    return head_logits(config, params, hidden)


def logprobs_and_entropy(
    config: PolicyConfig,
    params: Params,
    hidden: Float[Array, "batch time width"],
    targets: Int[Array, "batch time"],
    temperature: float = 1.0,
) -> tuple[Float[Array, "batch time"], Float[Array, "batch time"]]:
    """Log-probability of each target and entropy of its distribution softmax(logits / temperature), in nats.

    With `config.head_chunk` set, logits exist for that many tokens at one time only, in the backward pass too.
    """

    def chunk(inputs):
        hidden, targets = inputs
        scaled = head_logits(config, params, hidden) / temperature
        # Relative to the likeliest token, so that what is near 0 is computed from numbers near 0: entropies of sharp
        # distributions keep their precision and are never negative. The results don't depend on the shift.
        scaled -= jax.lax.stop_gradient(jnp.max(scaled, axis=-1, keepdims=True))
        weights = jnp.exp(scaled)
        normalizer = jnp.sum(weights, axis=-1)
        log_normalizer = jnp.log(normalizer)
        chosen = jnp.take_along_axis(scaled, targets[:, None], axis=-1)[:, 0]
        return chosen - log_normalizer, log_normalizer - jnp.sum(weights * scaled, axis=-1) / normalizer

    shape, count = targets.shape, targets.size
    hidden, targets = hidden.reshape(count, -1), targets.reshape(count)
    size = config.head_chunk
    if size == 0 or count <= size:
        logprobs, entropy = chunk((hidden, targets))
    else:
        chunks = -(-count // size)
        pad = chunks * size - count
        hidden = jnp.pad(hidden, ((0, pad), (0, 0))).reshape(chunks, size, -1)
        targets = jnp.pad(targets, (0, pad)).reshape(chunks, size)
        logprobs, entropy = (x.reshape(-1)[:count] for x in jax.lax.map(jax.checkpoint(chunk), (hidden, targets)))
    return logprobs.reshape(shape), entropy.reshape(shape)
