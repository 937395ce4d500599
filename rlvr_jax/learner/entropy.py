"""Entropy: functions (terms, entropy, loss) -> the loss of each token, and the tokens that they select.

`entropy` is H_t of softmax(logits / temperature), over the whole vocabulary; `loss` the token's clipped and weighted
policy loss. Some choices act on selected tokens. The selection is made on the host before the step's first update, over
all actions of an update, so it does not depend on microbatches or devices, unlike in the released codes.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.ratios import Terms
from rlvr_jax.tasks.task import draw

Actions = Float[Array, "batch action"]
HostActions = Float[np.ndarray, "actions"]


def none(_: Terms, __: Actions, loss: Actions) -> Actions:
    """The loss."""
    return loss


def bonus(terms: Terms, entropy: Actions, loss: Actions) -> Actions:
    """loss - coef H_t, H_t with its gradient (Williams & Peng 1991)."""
    return loss - terms.config.entropy_coef * entropy


def adaptive(terms: Terms, entropy: Actions, loss: Actions) -> Actions:
    """`bonus` with the coefficient of the step, see `next_coefficient`."""
    coef = jnp.where(terms.batch.action_mask > 0, terms.batch.columns["entropy_coef"], 0.0)
    return loss - coef * entropy


def clip_cov(terms: Terms, _: Actions, loss: Actions) -> Actions:
    """0 for selected tokens: `share` of all (at least one), drawn from those with cov_low < cov_t < cov_high, where
    cov_t = (A_t - mean A)(log policy_t - mean log policy).

    Source: Cui et al. 2025 (arXiv:2505.22617), Clip-Cov, with a share of 2e-4, bounds 1 and 5 and a clip range of 1.
    The log-probs are the sampler's; the released code also leaves out tokens that are clipped already.
    """
    return jnp.where(_selected(terms), 0.0, loss)


def kl_cov(terms: Terms, _: Actions, loss: Actions) -> Actions:
    """loss + coef |log policy - log proximal| for selected tokens: the `share` of largest cov_t, see `clip_cov`.

    Source: Cui et al. 2025 (arXiv:2505.22617), KL-Cov, with coef 1, a share of 2e-3 (7B) or 2e-4 (32B) and no clip.
    verl's YAML has a coef of 0.1. The term has no gradient where the policy is exactly the
    proximal one; where they differ by rounding, as with the sampler's log-probs, its gradient has a random sign.
    """
    return loss + jnp.where(_selected(terms), terms.config.entropy_coef * jnp.abs(terms.log_ratio), 0.0)


def top_share(terms: Terms, _: Actions, loss: Actions) -> Actions:
    """0 but for the `share` of tokens with the largest entropy; divisors still count all tokens.

    Source: Wang et al. 2025 (the 80/20 rule, arXiv:2506.01939), with a share of 0.2. The entropies are those of the
    policy before the step's first update, at the cost of a forward pass.
    """
    return jnp.where(_selected(terms), loss, 0.0)


def _selected(terms: Terms) -> Bool[Array, "batch action"]:
    (name,) = NEEDS[terms.config.entropy]
    return terms.batch.columns[name] > 0


ENTROPIES: Mapping[str, Callable[[Terms, Actions, Actions], Actions]] = {
    "none": none,
    "bonus": bonus,
    "adaptive": adaptive,
    "clip_cov": clip_cov,
    "kl_cov": kl_cov,
    "top_share": top_share,
}
# Columns of the coefficient and of selected tokens; "uncertain" needs the entropies of a forward pass.
NEEDS = {"adaptive": ("entropy_coef",), "clip_cov": ("selected",), "kl_cov": ("selected",), "top_share": ("uncertain",)}


def coefficient(config: AlgorithmConfig, coef: float, entropy: float) -> float:
    """The coefficient of "adaptive" in a step: `coef` if the last measured entropy is at most the target, else 0."""
    return coef if entropy <= config.entropy_target else 0.0


def next_coefficient(config: AlgorithmConfig, coef: float, entropy: float) -> float:
    """`coef` after a step: larger by delta if the entropy was at most the target, else smaller, within [0, 1].

    Source: Skywork-OR1 (He et al. 2025, arXiv:2505.22312), with a delta of 0.005 and a target of 0.2 nats. The entropy
    is that of the step's first update, so whether a coefficient applies is decided by the step before.
    """
    change = config.entropy_delta if entropy <= config.entropy_target else -config.entropy_delta
    return float(np.clip(coef + change, 0, 1))


def covariances(advantages: HostActions, logprobs: HostActions) -> HostActions:
    """cov_t of each action, in float64."""
    centred = (x.astype(np.float64) - np.mean(x, dtype=np.float64) for x in (advantages, logprobs))
    return np.prod(list(centred), axis=0)


def by_covariance(config: AlgorithmConfig, seed: int, step: int, batch: Batch) -> Float[np.ndarray, "batch action"]:
    """The column of the tokens that `clip_cov` or `kl_cov` selects in each update of a step.

    Args:
      config: the choices.
      seed, step: of the run; they seed the draw of `clip_cov`.
      batch: of the step, with the columns "advantages" and "behaviour".
    """

    def select(update: int, advantages: HostActions, logprobs: HostActions) -> Bool[np.ndarray, "actions"]:
        covariance, chosen = covariances(advantages, logprobs), np.zeros(len(advantages), bool)
        count = max(1, int(config.entropy_share * len(chosen)))
        if config.entropy == "kl_cov":
            chosen[np.argsort(-covariance, kind="stable")[:count]] = True
            return chosen
        places = np.flatnonzero((covariance > config.cov_low) & (covariance < config.cov_high)).tolist()
        chosen[sorted(places, key=lambda place: draw("clip_cov", seed, step, update, place))[:count]] = True
        return chosen

    return _of_updates(config, select, batch, batch.columns["advantages"], batch.columns["behaviour"])


def by_entropy(
    config: AlgorithmConfig, batch: Batch, entropy: Float[np.ndarray, "batch action"]
) -> Float[np.ndarray, "batch action"]:
    """The column of the tokens that `top_share` selects: in each update those at or above the (1 - share) quantile."""
    return _of_updates(config, lambda _, x: x >= np.quantile(x, 1 - config.entropy_share), batch, entropy)


def _of_updates(
    config: AlgorithmConfig,
    select: Callable[..., Bool[np.ndarray, "actions"]],
    batch: Batch,
    *columns: Float[np.ndarray, "batch action"],
) -> Float[np.ndarray, "batch action"]:
    """1 for the actions that `select` (update, flat values of its actions) chooses in each update of a step."""
    mask = np.asarray(batch.action_mask) > 0
    found = np.zeros(mask.shape, np.float32)
    for update, own in enumerate(np.split(mask, config.minibatches)):
        rows = slice(update * len(own), (update + 1) * len(own))
        if own.any():
            found[rows][own] = select(update, *(np.asarray(x)[rows][own] for x in columns))
    return found
