"""Losses of preferences: of a policy that is to prefer chosen completions, and of a reward model.

Each is a pure function of numbers of whole completions, `Pairs`; a row of the table says what it trains and needs. With
d = log policy - log reference of a completion, a sum over its tokens (nats), w the chosen and l the rejected one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from rlvr_jax import policy
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.losses import Loss, Sums
from rlvr_jax.learner.scores import score, token_states
from rlvr_jax.learner.supervised import PreferencesConfig
from rlvr_jax.policy import Params, PolicyConfig

Number = Float[Array, "pairs"]
Both = Float[Array, "pairs 2"]

_FIRST = 2  # the segment of the first completion in a row of `packing.pack`


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Pairs:
    """Numbers of the completions of pairs, the chosen one first.

    For "kto" the first is a completion and the second one of another prompt, which only estimates the KL divergence.

    Attributes:
      values: log-probs of the completions under the policy (nats); for a reward model their rewards.
      reference: log-probs under the reference policy; 0 if the loss needs none.
      lengths: in tokens.
      margin: of each pair.
      good: 1 for a pair, and of a single completion whether it is good.
      baseline: the estimate of the KL divergence of "kto"; 0 for others.
    """

    values: Both
    reference: Both
    lengths: Both
    margin: Number
    good: Number
    baseline: Number

    @property
    def log_ratios(self) -> Both:
        """d of both completions."""
        return self.values - self.reference


def _logistic(config: PreferencesConfig, z: Number) -> Number:
    """-log sigmoid(z), of which a share e, the label smoothing, with the sign of z turned."""
    e = config.label_smoothing
    return (1 - e) * jax.nn.softplus(-z) + e * jax.nn.softplus(z)


def _difference(x: Both) -> Number:
    return x[:, 0] - x[:, 1]


def dpo(config: PreferencesConfig, pairs: Pairs) -> tuple[Number, Both]:
    """-log sigmoid(beta (d_w - d_l) - margin).

    Source: Rafailov et al. 2023 (arXiv:2305.18290), eq. 7; label smoothing: Mitchell 2023 ("conservative DPO"); the
    margin: Amini et al. 2024 (arXiv:2402.10571).
    """
    rewards = config.beta * pairs.log_ratios
    return _logistic(config, _difference(rewards) - config.margin * pairs.margin), rewards


def dpo_norm(config: PreferencesConfig, pairs: Pairs) -> tuple[Number, Both]:
    """As `dpo`, with d divided by the number of tokens of its completion.

    Source: Lambert et al. 2024 (Tulu 3, arXiv:2411.15124), section 5, after Meng et al. 2024 (arXiv:2405.14734).
    """
    rewards = config.beta * pairs.log_ratios / pairs.lengths
    return _logistic(config, _difference(rewards) - config.margin * pairs.margin), rewards


def ipo(config: PreferencesConfig, pairs: Pairs) -> tuple[Number, Both]:
    """(d_w - d_l - 1 / (2 beta))^2, with sums over tokens as in the paper.

    Source: Azar et al. 2023 (arXiv:2310.12036), eq. 17. Other libraries divide d by the length of its completion, which
    has another optimum.
    """
    d = pairs.log_ratios
    return (_difference(d) - 1 / (2 * config.beta)) ** 2, config.beta * d


def simpo(config: PreferencesConfig, pairs: Pairs) -> tuple[Number, Both]:
    """-log sigmoid(beta (log policy(w) / |w| - log policy(l) / |l|) - margin): without a reference policy.

    Source: Meng et al. 2024 (arXiv:2405.14734), eq. 6, whose gamma is the margin.
    """
    rewards = config.beta * pairs.values / pairs.lengths
    return _logistic(config, _difference(rewards) - config.margin * pairs.margin), rewards


def kto(config: PreferencesConfig, pairs: Pairs) -> tuple[Number, Both]:
    """weight (1 - sigmoid(beta (d - z))) of a good completion, weight (1 - sigmoid(beta (z - d))) of a bad one.

    z, the `baseline`, has no gradient: the mean of d over completions of other prompts, or 0 if it is negative.

    Source: Ethayarajh et al. 2024 (arXiv:2402.01306), eq. 7 and 8.
    """
    rewards = config.beta * pairs.log_ratios
    sign = 2 * pairs.good - 1
    weight = jnp.where(pairs.good > 0, config.desirable, config.undesirable)
    return weight * jax.nn.sigmoid(-sign * (rewards[:, 0] - config.beta * pairs.baseline)), rewards


def bradley_terry(config: PreferencesConfig, pairs: Pairs) -> tuple[Number, Both]:
    """-log sigmoid(r_w - r_l - margin) + centring (r_w + r_l)^2, for the rewards r of a reward model.

    Source: Bradley & Terry 1952; the margin: Touvron et al. 2023 (Llama 2, arXiv:2307.09288), eq. 2; centring:
    Eisenstein et al. 2023 (arXiv:2312.09244).
    """
    r = pairs.values
    loss = jax.nn.softplus(config.margin * pairs.margin - _difference(r))
    return loss + config.centring * jnp.sum(r, axis=1) ** 2, r


@dataclass(frozen=True)
class Preference:
    """A row of the table.

    Attributes:
      losses: (config, pairs) -> the loss of each pair, and the reward that it gives both completions.
      network: that it trains: "policy" or "reward".
      reference: whether it compares with a reference policy.
      paired: False for single completions.
    """

    losses: Callable[[PreferencesConfig, Pairs], tuple[Number, Both]]
    network: str = "policy"
    reference: bool = True
    paired: bool = True


LOSSES: Mapping[str, Preference] = {
    "dpo": Preference(dpo),
    "dpo_norm": Preference(dpo_norm),
    "ipo": Preference(ipo),
    "simpo": Preference(simpo, reference=False),
    "kto": Preference(kto, paired=False),
    "bradley_terry": Preference(bradley_terry, network="reward", reference=False),
}


def columns_of(config: PreferencesConfig) -> tuple[str, ...]:
    """The columns of a batch that the loss reads: those of `Pairs`, the same number at each token of a completion, and
    the log-probs of the tokens under the reference policy ("reference")."""
    chosen = LOSSES[config.loss]
    needs = ("reference",) * chosen.reference + ("pair_margin",) * (config.margin != 0)
    return needs + ("good", "baseline") * (not chosen.paired)


def preference_loss(shape: PolicyConfig, config: PreferencesConfig) -> Loss:
    """The loss that the config names; it trains "policy", or "reward".

    Args:
      shape: the architecture of the policy.
      config: the choices.
    """
    chosen = LOSSES[config.loss]

    def sums(params: Mapping[str, Params], batch: Batch) -> Sums:
        values = values_of(shape, chosen, params[chosen.network], batch)
        return sums_of(config, pairs_of(batch, values), of_completions(batch, batch.action_mask)[:, 0] > 0)

    together = 1 if config.packing == "prefix_tree" else 2
    return Loss(sums, columns_of(config), together, metrics="preferences")


def values_of(shape: PolicyConfig, chosen: Preference, params: Params, batch: Batch) -> Both:
    """The log-prob, or the reward, of both completions of each pair, in float32."""
    if chosen.network == "reward":
        return rewards_of(shape, params, batch).reshape(-1, 2)
    logprobs, _ = score(shape, params, batch, 1.0)
    return of_completions(batch, jnp.where(batch.action_mask > 0, logprobs, 0.0))


def pairs_of(batch: Batch, values: Both) -> Pairs:
    """The numbers of the pairs of a batch, from its columns."""
    mask, columns = batch.action_mask, batch.columns
    lengths = jnp.maximum(of_completions(batch, mask), 1.0)
    masked = lambda name: of_completions(batch, jnp.where(mask > 0, columns[name], 0.0))  # noqa: E731
    mean = lambda name, default: (  # noqa: E731
        (masked(name) / lengths)[:, 0] if name in columns else jnp.full(len(values), default, jnp.float32)
    )
    reference = masked("reference") if "reference" in columns else jnp.zeros_like(values)
    return Pairs(values, reference, lengths, mean("pair_margin", 1.0), mean("good", 1.0), mean("baseline", 0.0))


def sums_of(config: PreferencesConfig, pairs: Pairs, real: Bool[Array | np.ndarray, "pairs"]) -> Sums:
    """The sums of the loss and of its metrics over real pairs; the weight is their number."""
    chosen = LOSSES[config.loss]
    losses, rewards = chosen.losses(config, pairs)
    count = jnp.sum(real, dtype=jnp.float32)
    mean = lambda x, of=real: (  # noqa: E731
        jnp.sum(jnp.where(of, x, 0.0), dtype=jnp.float32), jnp.sum(of, dtype=jnp.float32)
    )  # fmt: skip
    means = {"preferences/loss": mean(losses)}
    if chosen.paired:
        margins = _difference(rewards)
        means |= {"preferences/margin": mean(margins), "preferences/accuracy": mean(margins > 0)}
        first, second, names = rewards[:, 0], rewards[:, 1], ("chosen", "rejected")
        of = (real, real)
    else:
        first, second, names = rewards[:, 0], rewards[:, 0], ("good", "bad")
        of = (real & (pairs.good > 0), real & (pairs.good == 0))
        means["preferences/baseline"] = mean(pairs.baseline)
    for name, rewarded, values, where in zip(names, (first, second), pairs.values.T, of, strict=True):
        means[f"preferences/{name}_reward"] = mean(rewarded, where)
        if chosen.network == "policy":
            values = values if chosen.paired else pairs.values[:, 0]
            means[f"preferences/{name}_logprob"] = mean(values, where)
    if chosen.reference:
        d = pairs.log_ratios if chosen.paired else pairs.log_ratios[:, :1]
        means["preferences/log_ratio"] = mean(jnp.mean(d, axis=1))
    return Sums(jnp.sum(jnp.where(real, losses, 0.0)), count, means, {})


def of_completions(batch: Batch, values: Float[Array | np.ndarray, "batch action"]) -> Both:
    """The sum over each completion of a pair, of masked values; rows of one completion or packed pairs."""
    if batch.parents is None:
        return jnp.sum(values, axis=1).reshape(-1, 2)
    segments = batch.segment_ids[:, -values.shape[1] :]
    return jnp.stack([jnp.sum(jnp.where(segments == _FIRST + i, values, 0.0), axis=1) for i in range(2)], axis=1)


def rewards_of(shape: PolicyConfig, params: Params, batch: Batch) -> Float[Array, "completions"]:
    """The reward of each completion, from the hidden state of its last token; two in each row of a packed batch."""
    hidden = token_states(shape, params, batch)
    of = (1,) if batch.parents is None else (_FIRST, _FIRST + 1)
    last = jnp.stack([_last(batch.segment_ids == segment) for segment in of], axis=1)
    states = jnp.take_along_axis(hidden, last[..., None], axis=1)
    return policy.values(shape, params, states).reshape(-1)


def _last(where: Bool[Array, "batch time"]) -> Int[Array, "batch"]:
    """The last column that is True."""
    columns = jnp.arange(where.shape[1], dtype=jnp.int32)
    return jnp.max(jnp.where(where, columns, 0), axis=1)


def kl_baseline(pairs: Pairs, real: Bool[Array | np.ndarray, "pairs"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The sum of d over completions of other prompts, and their number: parts of the `baseline` of "kto"."""
    return jnp.sum(jnp.where(real, pairs.log_ratios[:, 1], 0.0)), jnp.sum(real, dtype=jnp.float32)
