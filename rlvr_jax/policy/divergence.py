"""Divergences between the next-token distributions of two policies with the same vocabulary, in float32."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.policy.head import head_logits, rows_per_device
from rlvr_jax.policy.model import Params

Tokens = Float[Array, "batch time"]


def mixture_divergence(
    log_p: Float[Array, "*n vocab"], log_q: Float[Array, "*n vocab"], beta: float
) -> Float[Array, "*n"]:
    """beta KL(P || M) + (1 - beta) KL(Q || M), M = beta P + (1 - beta) Q, in nats; KL(Q || P) for beta = 1, and
    KL(P || Q) for beta = 0.

    The formula itself is 0 at both ends; its limits over beta and over 1 - beta are these two divergences, so a beta
    near an end is a small loss, and a beta at the end is not.

    Source: Agarwal et al. 2023 (GKD, arXiv:2306.13649), eq. 1; the ends as in TRL.

    Args:
      log_p: log-probs of the teacher, P.
      log_q: log-probs of the student, Q.
      beta: in [0, 1].
    """
    kl = lambda log_a, log_b: jnp.sum(jnp.exp(log_a) * (log_a - log_b), axis=-1)  # noqa: E731
    if beta == 0:
        return kl(log_p, log_q)
    if beta == 1:
        return kl(log_q, log_p)
    log_m = jnp.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return beta * kl(log_p, log_m) + (1 - beta) * kl(log_q, log_m)


def divergence_and_logprobs(
    config: PolicyConfig,
    params: Params,
    hidden: Float[Array, "batch time width"],
    teacher_config: PolicyConfig,
    teacher: Params,
    teacher_hidden: Float[Array, "batch time teacher_width"],
    targets: Int[Array, "batch time"],
    temperature: float,
    beta: float,
) -> tuple[Tokens, Tokens, Tokens, Tokens]:
    """At each token `mixture_divergence`, the target's log-probs under student and teacher, and the student's entropy.

    Both are softmax(logits / temperature). If one has more logits, because its table is padded, those beyond the
    other's are left out. With `config.head_chunk` set, the logits of only about that many tokens per device are in
    memory at a time, also in the backward pass.

    Args:
      config, params, hidden: of the student, the policy that is trained.
      teacher_config, teacher, teacher_hidden: of the teacher.
      targets: the tokens.
      temperature: of both.
      beta: see `mixture_divergence`.
    """
    table = {"embed": params.get("head", params["embed"])}
    fixed = {"embed": teacher.get("head", teacher["embed"])}
    size = min(len(table["embed"]), len(fixed["embed"]))

    def chunk(inputs):
        own, others, chosen = inputs
        log_q = jax.nn.log_softmax(head_logits(config, table, own)[..., :size] / temperature)
        log_p = jax.nn.log_softmax(head_logits(teacher_config, fixed, others)[..., :size] / temperature)
        of_targets = lambda x: jnp.take_along_axis(x, chosen[..., None], axis=-1)[..., 0]  # noqa: E731
        entropy = -jnp.sum(jnp.exp(log_q) * log_q, axis=-1)
        return mixture_divergence(log_p, log_q, beta), of_targets(log_q), of_targets(log_p), entropy

    rows, time = targets.shape
    width = max(1, config.head_chunk // rows_per_device(rows)) if config.head_chunk > 0 else time
    if width >= time:
        return chunk((hidden, teacher_hidden, targets))
    chunks = -(-time // width)

    def divided(x: Array) -> Array:  # [chunk, batch, width, ...]: the axis of the loop is not sharded
        x = jnp.pad(x, ((0, 0), (0, chunks * width - time)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(rows, chunks, width, *x.shape[2:]), 1, 0)

    found = jax.lax.map(jax.checkpoint(chunk), tuple(map(divided, (hidden, teacher_hidden, targets))))
    return tuple(jnp.moveaxis(x, 0, 1).reshape(rows, -1)[:, :time] for x in found)
