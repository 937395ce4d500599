"""The loss of reinforcement learning in float64 NumPy, sample by sample and token by token, and random input for it."""

import math

import jax.numpy as jnp
import numpy as np

from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.losses import policy_loss

ROWS, TIME, BUDGET = 7, 9, 12
GROUPS = (0, 0, 0, 1, 1, 2, 2)  # of the rows
ARGUMENTS = ("logprobs", "entropy")
COLUMNS = (
    "demonstrated",
    "advantages",
    "behaviour",
    "proximal",
    "reference",
    "group_tokens",
    "selected",
    "uncertain",
    "entropy_coef",
)


def random_inputs(seed):
    """Ragged rows, one without any action and one of padding, with ratios on both sides of every clip range."""
    rng = np.random.default_rng(seed)
    lengths = np.array([TIME, 0, 1, 5, 7, 3, 0])
    logprobs = -rng.exponential(1.0, (ROWS, TIME)) - 0.5
    near = lambda: logprobs + rng.normal(size=(ROWS, TIME)) * 0.4  # noqa: E731
    arrays = {
        "logprobs": logprobs,
        "entropy": rng.exponential(1.0, (ROWS, TIME)),
        "mask": np.arange(TIME) < lengths[:, None],
        "samples": np.array([1, 1, 1, 1, 1, 1, 0]),
        "advantages": rng.normal(size=(ROWS, TIME)),
        "behaviour": near(),
        "reference": near(),
        "proximal": near(),
    }
    arrays["entropy_coef"] = rng.random((ROWS, TIME))
    arrays |= {name: rng.random((ROWS, TIME)) < 0.4 for name in ("selected", "uncertain", "demonstrated")}
    arrays["mask"][3, 2] = arrays["mask"][4, 4:6] = False  # observations in the middle of a response
    counts = np.bincount(GROUPS, arrays["mask"].sum(axis=1))
    arrays["group_tokens"] = np.repeat(counts[list(GROUPS)][:, None], TIME, axis=1)
    return {name: x.astype(np.float32) for name, x in arrays.items()}


def batch_of(inputs):
    batch = layout([[1]] * ROWS, [[1] * TIME] * ROWS, 1, TIME)
    columns = {name: jnp.asarray(inputs[name]) for name in COLUMNS}
    return batch.replace(action_mask=jnp.asarray(inputs["mask"]), samples=inputs["samples"], columns=columns)


def loss_of(config, inputs):
    """The sums that the library computes."""
    return policy_loss(config, BUDGET, *(jnp.asarray(inputs[name]) for name in ARGUMENTS), batch_of(inputs))


def by_hand(config, inputs, logprobs=None):
    """(loss, weight, sums of the metrics, maxima). With `logprobs` the log-probs of the policy are these wherever a
    gradient flows, and those of `inputs` where it is stopped."""
    x = {name: value.astype(np.float64) for name, value in inputs.items()}
    moving = x["logprobs"] if logprobs is None else logprobs
    weights, divisor = _weights(config, x)
    loss, metrics = 0.0, {"entropy": 0.0, "clip_low": 0.0, "clip_high": 0.0, "clip_dual": 0.0, "importance_weight": 0.0}
    metrics |= dict.fromkeys(("kl", "kl_k1", "policy_kl", "importance_raw", "importance_chi2"), 0.0)
    metrics |= dict.fromkeys(("importance_sample", "importance_sample_chi2"), 0.0)
    metrics |= dict.fromkeys(("entropy_positive", "entropy_negative", "importance_masked", "entropy_coef"), 0.0)
    metrics["logprob_gap_mean"] = gap = moved = range_ = 0.0
    for row in range(ROWS):
        places = np.flatnonzero(x["mask"][row])
        if len(places) == 0:
            continue
        column = {name: x[name][row, places] for name in (*ARGUMENTS, *COLUMNS)}
        terms = _sample(config, column, moving[row, places])
        loss += float(np.sum(weights[row, places] * terms.pop("loss")))
        metrics["entropy"] += column["entropy"].sum()
        for name, values in terms.items():
            metrics[name] += float(np.sum(values))
        metrics["entropy_positive"] += column["entropy"][column["advantages"] > 0].sum()
        metrics["entropy_negative"] += column["entropy"][column["advantages"] < 0].sum()
        gaps = np.abs(column["logprobs"] - column["behaviour"])
        metrics["logprob_gap_mean"] += gaps.sum()
        gap = max(gap, float(gaps.max()))
        moved = max(moved, float(np.abs(np.exp(column["logprobs"]) - np.exp(column["behaviour"])).max()))
        range_ = max(range_, float(np.abs(column["logprobs"] - _anchor(config, column)).max()))
    largest = {"train/logprob_gap": gap, "train/probability_gap": moved}
    largest |= {} if config.ratio == "none" else {"train/log_ratio": range_}
    return loss, divisor, metrics, largest


def _anchor(config, x):
    return {"behaviour": x["behaviour"], "recompute": x["proximal"], "current": x["logprobs"]}[config.proximal]


def _weights(config, x):
    mask, ones = x["mask"], np.ones((ROWS, TIME))
    lengths, samples = np.maximum(mask.sum(axis=1), 1), x["samples"].sum()
    per_group = {g: mask[[i for i in range(ROWS) if GROUPS[i] == g]].sum() for g in set(GROUPS)}
    of_group = np.array([1 / max(per_group[g], 1) for g in GROUPS])
    return {
        "token_mean": (ones, mask.sum()),
        "group_token_mean": (of_group[:, None] * ones, sum(n > 0 for n in per_group.values())),
        "sequence_mean": (ones / lengths[:, None], samples),
        "sequence_sum": (ones, samples),
        "constant": (ones, samples * (config.aggregation_tokens or BUDGET)),
    }[config.aggregation]


def _sample(config, x, moving):
    """The loss of each token of one sample, and the metrics' terms."""
    fixed, count, low, high = x["logprobs"], len(moving), config.clip_low, config.clip_high
    anchor = _anchor(config, x)
    mean_now, mean_fixed = np.mean(moving - anchor), np.mean(fixed - anchor)
    found = {"loss": np.zeros(count)}
    for t in range(count):
        a = x["advantages"][t]
        u = {
            "token": lambda t=t: math.exp(moving[t] - anchor[t]),
            "sequence": lambda: math.exp(mean_now),
            "sequence_token": lambda t=t: math.exp(mean_fixed) * math.exp(moving[t] - fixed[t]),
            "geometric": lambda: _geometric(moving - anchor, x["advantages"], low, high),
            "none": lambda t=t: moving[t],
        }[config.ratio]()
        loss, active = _clip(config, u, a, moving[t], fixed[t], anchor[t])
        if config.clip == "mirror":
            loss = -a * moving[t] + config.mirror_tau / 2 * np.sum(moving - anchor) ** 2 / count
        for name in active:
            found.setdefault(name, np.zeros(count))[t] = 1
        if config.correction != "none":
            weight = _weight(config, anchor - x["behaviour"], t)
            loss *= weight
            found.setdefault("importance_weight", np.zeros(count))[t] = weight
            found.setdefault("importance_masked", np.zeros(count))[t] = weight == 0
        loss = {
            "none": loss,
            "bonus": loss - config.entropy_coef * x["entropy"][t],
            "adaptive": loss - x["entropy_coef"][t] * x["entropy"][t],
            "clip_cov": 0.0 if x["selected"][t] else loss,
            "kl_cov": loss + x["selected"][t] * config.entropy_coef * abs(moving[t] - anchor[t]),
            "top_share": loss if x["uncertain"][t] else 0.0,
        }[config.entropy]
        d = moving[t] - x["reference"][t]
        if config.kl_coef:
            loss += config.kl_coef * _kl(config.kl, d, moving[t], fixed[t], x["behaviour"][t])
        found["loss"][t] = loss
    if config.entropy == "adaptive":
        found["entropy_coef"] = x["entropy_coef"]
    if config.ratio != "none":
        found["policy_kl"] = np.exp(fixed - anchor) - 1 - (fixed - anchor)
    if config.proximal != "behaviour":
        w = np.exp(anchor - x["behaviour"])
        whole = np.ones(count) / count * math.exp(np.sum(anchor - x["behaviour"]))
        found |= {"importance_raw": w, "importance_chi2": w**2 - 1}
        found |= {"importance_sample": whole, "importance_sample_chi2": whole**2 * count - 1 / count}
    d = fixed - x["reference"]
    if config.reference != "none":
        found |= {"kl": np.exp(-d) - 1 + d, "kl_k1": d}
    return found


def _geometric(z, advantages, low, high):
    limited = [min(v, high) if a > 0 else max(v, -low) for v, a in zip(z, advantages, strict=True)]
    return math.exp(np.mean(limited))


def _clip(config, u, a, moving, fixed, anchor):
    low, high = 1 - config.clip_low, 1 + config.clip_high
    if config.clip == "dcpo":
        q = math.exp(anchor)
        low = 0.5 + 0.5 * math.sqrt(max(0, 1 - 4 * config.clip_low / q))
        high = min(10, 0.5 + 0.5 * math.sqrt(1 + 4 * config.clip_high / q))
    if config.clip in ("ppo", "dual", "dcpo"):
        if a > 0 and u > high:
            return -high * a, ["clip_high"]
        if a < 0 and u < low:
            return -low * a, ["clip_low"]
        if config.clip == "dual" and a < 0 and u > config.clip_dual:
            return -config.clip_dual * a, ["clip_dual"]
        return -u * a, []
    if config.clip == "cispo":  # the weight has no gradient: it is that of the fixed log-prob
        weight = math.exp(fixed - anchor)
        active = ["clip_low"] * (weight < low) + ["clip_high"] * (weight > high)
        return -min(max(weight, max(low, 0)), high) * a * moving, active
    if config.clip == "sapo":
        tau = config.tau_positive if a > 0 else config.tau_negative
        return -a * 4 / tau / (1 + math.exp(-tau * (u - 1))), []
    if config.clip == "dppo":
        moved = math.exp(fixed) - math.exp(anchor)
        if a > 0 and moved > config.clip_high:
            return 0.0, ["clip_high"]
        if a < 0 and moved < -config.clip_low:
            return 0.0, ["clip_low"]
    return -u * a, []


def _weight(config, log_w, t):
    w, whole, mean = math.exp(log_w[t]), math.exp(log_w.sum()), math.exp(log_w.mean())
    floor, cap = config.importance_floor, config.importance_cap
    return {
        "decoupled": w,
        "token_tis": min(w, cap),
        "token_mis": w if floor <= w <= cap else 0.0,
        "sequence_tis": min(whole, cap),
        "sequence_mis": whole if floor <= whole <= cap else 0.0,
        "geometric": float(floor <= mean <= cap),
    }[config.correction]


def _kl(kind, d, moving, fixed, behaviour):
    return {
        "none": 0.0,
        "k2": d**2 / 2,
        "k3": math.exp(-d) - 1 + d,
        "ratio_k1": math.exp(moving - behaviour) * d,
        "ratio_k3": math.exp(moving - behaviour) * (math.exp(-d) - 1 + d),
        "weighted_k2": math.exp(fixed - behaviour) * d**2 / 2,
    }[kind]
