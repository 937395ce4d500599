"""The losses against float64 NumPy on ragged masks, their gradients, and what masked places may hold."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.algorithm_rules import CHOICES as TABLES
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.correction import weight_quantiles
from rlvr_jax.learner.kl import k1, k3
from rlvr_jax.learner.losses import columns_of, imitation_loss, policy_gradient, policy_loss
from rlvr_jax.learner.quantiles import EDGES
from rlvr_jax.policy import PolicyConfig
from tests.learner.loss_by_hand import ARGUMENTS, BUDGET, COLUMNS, ROWS, TIME, batch_of, by_hand, loss_of, random_inputs

CONFIG = AlgorithmConfig(clip_low=0.2, clip_high=0.3, kl_coef=0.25, reference="initial")
NO_KL = replace(CONFIG, kl_coef=0.0, reference="none")
DECOUPLED = replace(CONFIG, proximal="recompute", correction="token_tis", importance_cap=1.2)
CHOICES = {
    "plain": NO_KL,
    "kl": CONFIG,
    "decoupled": DECOUPLED,
    "recomputed": replace(NO_KL, proximal="recompute"),
    "current": replace(NO_KL, proximal="current", correction="token_tis"),
    "metric": replace(NO_KL, reference="initial"),
    "tokens": replace(CONFIG, aggregation="constant", aggregation_tokens=30),
    **{f"aggregation {name}": replace(CONFIG, aggregation=name) for name in TABLES["aggregation"]},
    **{f"kl {name}": replace(CONFIG, kl=name, kl_coef=0.25 * (name != "none")) for name in TABLES["kl"]},
    **{f"clip {name}": replace(NO_KL, clip=name, clip_dual=1.4) for name in TABLES["clip"]},
    **{
        f"ratio {name}": replace(NO_KL, ratio=name, clip_low=0.05, clip_high=0.07)
        for name in ("sequence", "sequence_token")
    },
    "kimi": replace(NO_KL, clip="mirror", mirror_tau=0.4, aggregation="sequence_sum", proximal="recompute"),
    "clip dppo": replace(NO_KL, clip="dppo", clip_low=0.05, clip_high=0.05),
    "clip dcpo": replace(NO_KL, clip="dcpo", clip_low=0.03, clip_high=0.03),
    **{f"ratio {name}": replace(NO_KL, ratio=name, clip="none") for name in ("geometric", "none")},
    # The ratio of the KL term is that of the token, whatever the policy's.
    "sequence and ratio_k3": replace(CONFIG, ratio="sequence", kl="ratio_k3", clip_low=0.05, clip_high=0.07),
    "gspo": replace(NO_KL, ratio="sequence", aggregation="sequence_mean", clip_low=0.05, clip_high=0.07),
    **{f"entropy {name}": replace(CONFIG, entropy=name, entropy_coef=0.3) for name in TABLES["entropy"]},
    **{
        f"correction {name}": replace(DECOUPLED, correction=name, importance_floor=0.8, importance_cap=1.5)
        for name in TABLES["correction"]
    },
}


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=4e-6, atol=4e-6)


def test_quantiles_of_importance_weights_are_over_all_sampled_actions():
    inputs = random_inputs(3)
    batch = batch_of(inputs)
    batch = batch.replace(action_mask=inputs["mask"], columns={k: np.asarray(x) for k, x in batch.columns.items()})
    sampled = (inputs["mask"] > 0) & (inputs["demonstrated"] == 0)
    w = np.sort(np.exp((inputs["proximal"] - inputs["behaviour"])[sampled].astype(np.float64)))
    found = weight_quantiles(batch)
    assert list(found) == [f"train/importance_q{x}" for x in ("0", "0.1", "1", "50", "99", "99.9", "100")]
    place = np.array([0, 0.001, 0.01, 0.5, 0.99, 0.999, 1]) * (len(w) - 1)  # linear between neighbours
    np.testing.assert_allclose(list(found.values()), np.interp(place, np.arange(len(w)), w), rtol=1e-5)
    nothing = batch.replace(action_mask=np.zeros_like(inputs["mask"]))
    assert weight_quantiles(nothing) == weight_quantiles(batch.replace(columns={})) == {}


def test_every_entry_of_the_tables_is_among_the_choices_that_are_computed_by_hand():
    for key in ("ratio", "clip", "aggregation", "correction", "kl", "entropy"):
        assert {getattr(config, key) for config in CHOICES.values()} == set(TABLES[key])


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("seed", range(2))
def test_loss_weight_and_all_metrics_are_those_of_the_formula(seed, choice):
    config, inputs = CHOICES[choice], random_inputs(seed)
    loss, weight, metrics, largest = by_hand(config, inputs)
    sums, count = loss_of(config, inputs), inputs["mask"].sum()
    close(sums.loss, loss)
    close(sums.weight, weight)
    found, found_largest = ({k: x for k, x in y.items() if k[0] != "_"} for y in (sums.means, sums.largest))
    assert found_largest.keys() == largest.keys()
    for name, value in largest.items():
        close(found_largest[name], value)
    assert found.pop("train/loss") == (sums.loss, sums.weight)
    if config.reference != "none":
        close(found.pop("train/kl_sample"), (metrics["kl_k1"], inputs["samples"].sum()))
    if "train/clip_low" in found:
        clipped = sum(metrics[name] for name in ("clip_low", "clip_high", "clip_dual"))
        close(found.pop("train/clip_fraction"), (clipped, count))
    for name in ("positive", "negative"):
        of = (inputs["advantages"] * (1 if name == "positive" else -1) > 0) * inputs["mask"]
        close(found.pop(f"train/entropy_{name}"), (metrics.pop(f"entropy_{name}"), of.sum()))
    with_actions = (inputs["mask"].sum(axis=1) > 0).sum()
    for name in {"train/importance_sample", "train/importance_sample_chi2"} & found.keys():
        close(found.pop(name), (metrics.pop(name.removeprefix("train/")), with_actions))
    for name, value in found.items():
        close(value, (metrics.pop(name.removeprefix("train/")), count))
    assert not any(metrics.values()), "something that was computed by hand is not reported"


@pytest.mark.parametrize("choice", CHOICES)
def test_gradient_is_that_of_finite_differences_with_stopped_gradients_held_fixed(choice):
    config, inputs = CHOICES[choice], random_inputs(3)
    gradient = np.asarray(jax.grad(lambda x: loss_of(config, inputs | {"logprobs": x}).loss)(inputs["logprobs"]))
    np.testing.assert_array_equal(gradient[inputs["mask"] == 0], 0)
    h, rng = 1e-6, np.random.default_rng(4)
    for _ in range(3):
        direction = rng.normal(size=(ROWS, TIME)) * inputs["mask"]
        moved = (inputs["logprobs"] + s * direction for s in (h, -h))
        ahead, behind = (by_hand(config, inputs, logprobs)[0] for logprobs in moved)
        terms = gradient * direction
        np.testing.assert_allclose(np.sum(terms), (ahead - behind) / (2 * h), rtol=0, atol=2e-5 * np.abs(terms).max())


def test_the_gradient_of_an_entropy_bonus_flows_through_the_entropy_with_the_weights_of_the_loss():
    config, inputs = replace(CHOICES["entropy bonus"], aggregation="sequence_mean"), random_inputs(0)
    gradient = jax.grad(lambda x: loss_of(config, inputs | {"entropy": x}).loss)(jnp.asarray(inputs["entropy"]))
    lengths = np.maximum(inputs["mask"].sum(axis=1, keepdims=True), 1)
    close(gradient, -0.3 * inputs["mask"] / lengths)


def test_the_effective_sample_size_is_that_of_the_raw_weights():
    config, inputs = replace(NO_KL, proximal="recompute", correction="token_mis"), random_inputs(0)
    means = loss_of(config, inputs).means
    w = np.exp((inputs["proximal"] - inputs["behaviour"])[inputs["mask"] > 0].astype(np.float64))
    loss = policy_gradient(PolicyConfig(), config, temperature=1.0, max_length=BUDGET)
    found = loss.derived({name: total / count for name, (total, count) in means.items()})
    close(found["train/effective_actions"], w.sum() ** 2 / (len(w) * np.sum(w**2)))
    places = [np.flatnonzero(row) for row in inputs["mask"] if row.any()]
    logs = [(inputs["proximal"] - inputs["behaviour"])[i] for i in np.flatnonzero(inputs["mask"].any(axis=1))]
    w = np.exp([x[place].astype(np.float64).sum() for x, place in zip(logs, places, strict=True)])
    close(found["train/effective_samples"], w.sum() ** 2 / (len(w) * np.sum(w**2)))
    assert loss.derived({"train/loss": jnp.float32(1)}) == {}


def test_the_correlation_of_the_samplers_and_the_trainers_logprobs():
    inputs, loss = random_inputs(0), policy_gradient(PolicyConfig(), NO_KL, temperature=1.0, max_length=BUDGET)
    for behaviour in (inputs["behaviour"], inputs["logprobs"]):
        moments, count = loss_of(NO_KL, inputs | {"behaviour": behaviour}).means["_logprob_moments"]
        found = loss.derived({"_logprob_moments": moments / count})["train/logprob_correlation"]
        pairs = np.stack([x[inputs["mask"] > 0].astype(np.float64) for x in (inputs["logprobs"], behaviour)])
        np.testing.assert_allclose(found, np.corrcoef(pairs)[0, 1], atol=2e-5)


def quantile_sums(shares, bounds):
    return {"_ratio_shares": jnp.asarray(shares), "_ratio_bounds": jnp.asarray(bounds)}


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_quantiles_of_the_ratio_are_those_of_all_actions_over_microbatches(level):
    config, inputs = replace(NO_KL, ratio=level), random_inputs(0)
    loss = policy_gradient(PolicyConfig(), config, temperature=1.0, max_length=BUDGET)
    z, mask = (inputs["logprobs"] - inputs["behaviour"]).astype(np.float64), inputs["mask"] > 0
    if level == "sequence":
        z = np.broadcast_to(np.sum(z * mask, axis=1, keepdims=True) / np.maximum(mask.sum(axis=1), 1)[:, None], z.shape)
    parts = [loss_of(config, rows_of(inputs, rows)) for rows in (range(ROWS // 2), range(ROWS // 2, ROWS))]
    shares, count = (sum(x.means["_ratio_shares"][i] for x in parts) for i in range(2))
    found = loss.derived(quantile_sums(shares / count, np.maximum(*(x.largest["_ratio_bounds"] for x in parts))))
    assert list(found) == [f"train/ratio_p{x}" for x in ("0", "0.1", "1", "50", "99", "99.9", "100")]
    values = np.log(list(found.values()))
    close(values[[0, -1]], (z[mask].min(), z[mask].max()))
    exact = np.quantile(z[mask], (0.001, 0.01, 0.5, 0.99, 0.999), method="inverted_cdf")
    above = np.searchsorted(EDGES, exact)
    assert np.all((EDGES[above - 1] - 1e-6 <= values[1:-1]) & (values[1:-1] <= EDGES[above] + 1e-6))
    nothing = loss_of(config, inputs | {"mask": np.zeros_like(inputs["mask"])})
    none = quantile_sums(nothing.means["_ratio_shares"][0], nothing.largest["_ratio_bounds"])
    assert set(map(float, loss.derived(none).values())) == {1.0}
    assert "_ratio_shares" not in loss_of(replace(config, ratio="none", clip="none"), inputs).means


def rows_of(inputs, rows):
    """The same shapes, with padding instead of the other rows."""
    kept = np.isin(np.arange(ROWS), rows).astype(np.float32)
    return inputs | {"mask": inputs["mask"] * kept[:, None], "samples": inputs["samples"] * kept}


@pytest.mark.parametrize("choice", CHOICES)
def test_the_sums_of_microbatches_add_up_to_those_of_the_batch(choice):
    """Whatever the choices, and though the parts have different numbers of actions."""
    config, inputs = CHOICES[choice], random_inputs(0)
    whole, first, second = (loss_of(config, rows_of(inputs, rows)) for rows in (range(ROWS), (0, 2, 5), (1, 3, 4, 6)))
    close(first.loss + second.loss, whole.loss)
    close(first.weight + second.weight, whole.weight)
    for name, value in whole.means.items():
        for a, b, of_both in zip(first.means[name], second.means[name], value, strict=True):
            close(a + b, of_both)
    for name, value in whole.largest.items():
        np.testing.assert_array_equal(np.maximum(first.largest[name], second.largest[name]), value)


def test_two_groups_of_different_length_weigh_the_same_by_group_and_not_by_token():
    """A group of one long sample with a loss of -1 per token, and one of a short sample with 2."""
    rows = lambda *values: np.pad(np.float32(values), ((0, ROWS - 2), (0, TIME - 4)))  # noqa: E731
    mask = rows([1, 1, 1, 1], [1, 0, 0, 0])
    inputs = random_inputs(0) | {"mask": mask, "samples": mask[:, 0], "advantages": mask * rows([1] * 4, [-2] * 4)}
    inputs |= {"group_tokens": mask * rows([4] * 4, [1] * 4), "behaviour": inputs["logprobs"]}
    sums = {name: loss_of(replace(NO_KL, aggregation=name), inputs) for name in TABLES["aggregation"]}
    found = {name: float(x.loss / x.weight) for name, x in sums.items()}
    expected = {"token_mean": -2 / 5, "group_token_mean": 1 / 2, "sequence_mean": 1 / 2, "sequence_sum": -1.0}
    assert found == pytest.approx(expected | {"constant": -2 / (2 * BUDGET)})


def test_both_clips_and_the_dual_one_are_active_in_the_random_inputs():
    for choice in ("plain", "clip dual", "clip cispo", "clip dcpo", "clip dppo", "ratio sequence", "gspo"):
        metrics = [by_hand(CHOICES[choice], random_inputs(seed))[2] for seed in range(2)]
        for name in ("clip_low", "clip_high") + ("clip_dual",) * (choice == "clip dual"):
            assert sum(found[name] for found in metrics) > 0, (choice, name)


@pytest.mark.parametrize("name", ["clip_low", "clip_high", "kl_coef", "importance_cap"])
def test_every_number_of_the_algorithm_changes_the_loss(name):
    inputs = random_inputs(0)
    other = replace(DECOUPLED, **{name: 0.9 * getattr(DECOUPLED, name)})
    assert abs(loss_of(other, inputs).loss - loss_of(DECOUPLED, inputs).loss) > 1e-3


@pytest.mark.parametrize("choice", CHOICES)
def test_a_loss_needs_the_columns_that_its_choices_read_and_no_others(choice):
    config, inputs = CHOICES[choice], random_inputs(0)
    loss = policy_gradient(PolicyConfig(), config, temperature=1.0, max_length=BUDGET)
    assert loss.needs == columns_of(config)
    assert loss.rows_together == 1
    batch = batch_of(inputs)
    batch = batch.replace(columns={name: batch.columns[name] for name in loss.needs})
    found = policy_loss(config, BUDGET, *(jnp.asarray(inputs[name]) for name in ARGUMENTS), batch)
    before = loss_of(config, inputs)
    assert found.loss == before.loss
    for name in loss.needs:
        after = loss_of(config, inputs | {name: np.zeros_like(inputs[name])})
        pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
        assert any(np.any(np.asarray(a) != b) for a, b in pairs), name


def one_token(config, ratio, advantage, proximal=0.5):
    """The loss of a single action and its derivative by the log-prob."""
    only = np.zeros((ROWS, TIME), np.float32)
    only[0, 0] = 1
    behaviour = np.float32(math.log(proximal)) * only
    inputs = random_inputs(0) | {"mask": only, "advantages": advantage * only, "behaviour": behaviour}
    logprobs = jax.device_put(np.float32(math.log(ratio * proximal)) * only)
    loss, gradient = jax.value_and_grad(lambda x: loss_of(config, inputs | {"logprobs": x}).loss)(logprobs)
    return loss, np.asarray(gradient)[0, 0]


@pytest.mark.parametrize(
    ("ratio", "advantage", "active"),
    [(1.5, 1.0, False), (1.5, -1.0, True), (0.5, 1.0, True), (0.5, -1.0, False), (1.1, 1.0, True), (0.9, -1.0, True)],
)
def test_gradient_stops_exactly_where_the_clip_would_let_the_ratio_run_away(ratio, advantage, active):
    _, gradient = one_token(NO_KL, ratio, advantage)
    close(gradient, -advantage * ratio if active else 0.0)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("choice", [x for x in CHOICES if x.startswith(("clip", "ratio"))])
def test_at_ratio_1_every_clip_and_ratio_has_the_gradient_of_reinforce(choice, advantage):
    _, gradient = one_token(CHOICES[choice], 1.0, advantage)
    close(gradient, -advantage)


def test_cispo_bounds_the_weight_by_1_plus_clip_high_and_leaves_small_ratios_alone():
    config = replace(NO_KL, clip="cispo", clip_low=1.0, clip_high=2.0)
    for ratio, weight in ((3.5, 3.0), (2.5, 2.5), (0.01, 0.01)):
        close(one_token(config, ratio, 1.0, 0.2)[1], -weight)


def test_a_dual_clip_bounds_the_loss_of_negative_advantages_only():
    config = replace(NO_KL, clip="dual", clip_dual=3.0)
    close(one_token(config, 5.0, -2.0, 0.1), (6.0, 0.0))
    close(one_token(config, 2.9, -2.0, 0.1), (5.8, 5.8))
    close(one_token(config, 5.0, 2.0, 0.1), (-2.6, 0.0))


def test_the_lower_bound_of_dcpo_is_a_half_for_probabilities_up_to_four_times_clip_low():
    config = replace(NO_KL, clip="dcpo", clip_low=0.16, clip_high=0.2)
    for proximal in (0.1, 0.6):
        close(one_token(config, 0.51, -1.0, proximal)[1], 0.51)
        close(one_token(config, 0.49, -1.0, proximal), (0.5, 0.0))
    close(one_token(config, 9.9, 1.0, 0.0004)[1], -9.9)
    close(one_token(config, 10.1, 1.0, 0.0004), (-10.0, 0.0))


@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_gradient_of_a_sample_in_gspo_is_s_a_over_n(length):
    config = replace(NO_KL, ratio="sequence", aggregation="sequence_mean", clip_low=0.5, clip_high=0.5)
    rng = np.random.default_rng(length)
    logprobs, behaviour = jnp.asarray(rng.normal(size=(2, ROWS, TIME)) * 0.2 - 1, jnp.float32)
    batch = layout([[1]] * ROWS, [[1] * length] + [[]] * (ROWS - 1), 1, TIME)
    batch = batch.with_columns(advantages=np.full((ROWS, TIME), 0.7), behaviour=behaviour)
    batch, mask = jax.device_put(batch), batch.action_mask
    s = np.exp(np.mean(np.asarray((logprobs - behaviour)[0, :length], np.float64)))
    loss = lambda x: policy_loss(config, BUDGET, x, jnp.zeros_like(x), batch).loss  # noqa: E731
    close(loss(logprobs), -s * 0.7)
    close(jax.grad(loss)(logprobs), -s * 0.7 / length * mask)
    token = replace(config, ratio="sequence_token")
    loss = lambda x: policy_loss(token, BUDGET, x, jnp.zeros_like(x), batch).loss  # noqa: E731
    close(jax.grad(loss)(logprobs), -s * 0.7 / length * mask)


def weight_of(correction, w, **constants):
    """The weight of two actions with these weights, the second of which is far off or not."""
    config = replace(NO_KL, proximal="recompute", correction=correction, clip="none", ratio="none", **constants)
    mask, proximal = np.zeros((2, ROWS, TIME), np.float32)
    mask[0, : len(w)], proximal[0, : len(w)] = 1, np.log(w)
    zeros = np.zeros_like(mask)
    inputs = random_inputs(0) | {"mask": mask, "advantages": -mask, "behaviour": zeros, "proximal": proximal}
    return np.asarray(gradient_in_logprobs(config, inputs | {"logprobs": zeros}))[0, : len(w)]


def test_weights_are_of_the_proximal_over_the_behaviour_policy_and_bounded_as_named():
    close(weight_of("token_mis", [4.0, 0.2], importance_cap=2.0), [0, 0.2])
    close(weight_of("token_mis", [4.0, 0.2], importance_floor=0.5, importance_cap=5.0), [4.0, 0])
    close(weight_of("token_tis", [50.0, 0.2], importance_cap=3.0), [3.0, 0.2])
    close(weight_of("decoupled", [50.0, 0.2]), [50.0, 0.2])
    close(weight_of("sequence_tis", [50.0, 0.2], importance_cap=3.0), [3.0, 3.0])
    close(weight_of("sequence_tis", [5.0, 0.2], importance_cap=3.0), [1.0, 1.0])
    close(weight_of("sequence_mis", [50.0, 0.2], importance_cap=3.0), [0, 0])
    close(weight_of("sequence_mis", [2.0, 0.2], importance_cap=3.0), [0.4, 0.4])
    close(weight_of("geometric", [50.0, 0.2], importance_cap=3.0), [0, 0])
    close(weight_of("geometric", [4.0, 1.0], importance_floor=0.5, importance_cap=3.0), [1, 1])


def gradient_in_logprobs(config, inputs):
    return jax.grad(lambda x: loss_of(config, inputs | {"logprobs": x}).loss)(jnp.asarray(inputs["logprobs"]))


def test_the_gradient_on_policy_is_that_of_reinforce():
    inputs = random_inputs(0)
    inputs |= {"behaviour": inputs["logprobs"], "proximal": inputs["logprobs"]}
    for choice in ("plain", "decoupled", "recomputed", "current", "ratio none", "clip cispo", "clip sapo", "clip none"):
        gradient = gradient_in_logprobs(replace(CHOICES[choice], kl_coef=0.0), inputs)
        np.testing.assert_allclose(gradient, -inputs["advantages"] * inputs["mask"], rtol=1e-6)


def test_the_first_update_after_a_lag_is_reinforce_with_the_truncated_importance_weight():
    """However far the policy is from the one that sampled, nothing is clipped: the clip is relative to the proximal
    one. Without a forward pass for it, "current" gives the same."""
    config, inputs = replace(DECOUPLED, kl_coef=0.0), random_inputs(1)
    inputs |= {"proximal": inputs["logprobs"]}
    importance = np.minimum(np.exp(inputs["logprobs"] - inputs["behaviour"]), config.importance_cap)
    assert (importance * inputs["mask"]).max() == np.float32(config.importance_cap)
    for proximal in ("recompute", "current"):
        config = replace(config, proximal=proximal)
        gradient = gradient_in_logprobs(config, inputs)
        np.testing.assert_allclose(gradient, -importance * inputs["advantages"] * inputs["mask"], rtol=1e-5)
        assert loss_of(config, inputs).means["train/clip_fraction"][0] == 0


def test_the_gap_is_exactly_zero_on_policy():
    inputs = random_inputs(0)
    assert loss_of(CONFIG, inputs | {"behaviour": inputs["logprobs"]}).largest["train/logprob_gap"] == 0


@partial(jax.jit, static_argnums=0)
def sums_and_gradient(config, inputs):
    def loss(logprobs):
        sums = loss_of(config, inputs | {"logprobs": logprobs})
        return sums.loss, sums

    return jax.grad(loss, has_aux=True)(inputs["logprobs"])


MASKED = ("decoupled", "gspo", "ratio geometric", "clip cispo", "clip dcpo", "kl ratio_k3", "correction sequence_mis")


@pytest.mark.parametrize("choice", MASKED)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 3e38, -3e38])
def test_masked_places_never_reach_loss_gradient_or_metrics_whatever_they_hold(choice, value):
    config, clean = CHOICES[choice], random_inputs(0)
    expected = jax.tree.leaves(sums_and_gradient(config, clean))
    for name in (*ARGUMENTS, *COLUMNS):
        dirty = clean | {name: np.where(clean["mask"] > 0, clean[name], np.float32(value))}
        for mine, other in zip(jax.tree.leaves(sums_and_gradient(config, dirty)), expected, strict=True):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("name", ["logprobs", "advantages", "behaviour", "proximal", "reference"])
def test_a_nan_on_an_action_is_not_hidden(name):
    inputs = random_inputs(0)
    inputs[name][0, 0] = math.nan
    assert math.isnan(loss_of(DECOUPLED, inputs).loss)


def test_ratios_that_overflow_in_float32_give_finite_losses_and_gradients():
    inputs = random_inputs(0)
    inputs["behaviour"][0, 0] = inputs["proximal"][0, 1] = -400
    inputs["behaviour"][3, 0] = inputs["proximal"][3, 1] = 400
    inputs["advantages"][0, :2] = 0
    for choice, config in CHOICES.items():
        loss = lambda x, config=config: loss_of(config, inputs | {"logprobs": x}).loss  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(inputs["logprobs"])
        assert math.isfinite(value), choice
        assert np.isfinite(gradient).all(), choice


def test_kl_estimates_are_zero_for_equal_policies_and_k3_is_positive_otherwise():
    x = jnp.asarray(random_inputs(0)["logprobs"])
    np.testing.assert_array_equal(k1(x, x), np.zeros_like(x))
    np.testing.assert_array_equal(k3(x, x), np.zeros_like(x))
    assert (k3(x, x + 0.5) > 0).all()
    assert (k3(x, x - 0.5) > 0).all()


@pytest.mark.parametrize("estimate", [k1, k3])
def test_kl_estimates_are_unbiased(estimate):
    """Their mean over all tokens, weighed by the policy, is the divergence itself."""
    rng = np.random.default_rng(2)
    policy, reference = (np.log(rng.dirichlet(np.ones(12), size=4)) for _ in range(2))
    exact = np.sum(np.exp(policy) * (policy - reference), axis=1)
    estimates = estimate(jnp.asarray(policy, jnp.float32), jnp.asarray(reference, jnp.float32))
    close(np.sum(np.exp(policy) * np.asarray(estimates, np.float64), axis=1), exact)


def divergence_gradients(logits, reference):
    """Gradients of KL(policy || reference) and KL(reference || policy) by the logits, in closed form."""
    p, q = np.exp(logits - np.logaddexp.reduce(logits)), np.exp(reference)
    log_p = np.log(p)
    reverse = p * (log_p - reference - np.sum(p * (log_p - reference)))
    return reverse, p - q


@partial(jax.jit, static_argnums=0)
def gradients_of_tokens(config, logits, batch):
    """Of the loss of each row by the logits, where the action of row i is token i."""

    def loss(logits, token, row):
        row = jax.tree.map(lambda x: x[None], row)
        return policy_loss(config, 1, jax.nn.log_softmax(logits)[token][None, None], jnp.zeros((1, 1)), row).loss

    return jax.vmap(jax.grad(loss), (None, 0, 0))(logits, jnp.arange(len(logits)), batch)


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("kind", [name for name in TABLES["kl"] if name != "none"])
def test_expected_gradients_of_the_kl_terms_by_enumeration_of_all_tokens(kind, off_policy):
    """A row for each token of a categorical distribution, weighed by the probability that it is sampled."""
    rng = np.random.default_rng(5)
    logits, other = rng.normal(size=(2, 4))
    reference = np.log(rng.dirichlet(np.ones(4)))
    sampled = other if off_policy else logits
    behaviour = sampled - np.logaddexp.reduce(sampled)
    column = lambda x: np.float32(x)[:, None]  # noqa: E731
    batch = layout([[1]] * 4, [[1]] * 4, 1, 1).with_columns(
        advantages=column(np.zeros(4)), behaviour=column(behaviour), reference=column(reference)
    )
    config = replace(CONFIG, kl=kind, kl_coef=1.0)
    gradient = np.exp(behaviour) @ np.asarray(gradients_of_tokens(config, np.float32(logits), batch))
    reverse, forward = divergence_gradients(logits, reference)
    exact = {"k2": not off_policy, "k3": False}.get(kind, True)
    assert np.allclose(gradient, reverse, atol=2e-6) == exact
    if kind == "k3" and not off_policy:
        close(gradient, forward)


def test_k1_in_the_loss_would_regularise_nothing():
    """The expectation of the gradient of log policy is 0: the reason for which it is refused."""
    logits = jnp.asarray(np.random.default_rng(5).normal(size=4), jnp.float32)
    p = jax.nn.softmax(logits)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jax.lax.stop_gradient(p) * jax.nn.log_softmax(x))))(logits)
    close(gradient, np.zeros(4))


def test_imitation_loss_is_the_negative_sum_of_unmasked_logprobs_over_their_count():
    inputs = random_inputs(0)
    places = list(zip(*np.nonzero(inputs["mask"]), strict=True))
    sums = imitation_loss(*(jnp.asarray(inputs[name]) for name in ("logprobs", "mask")))
    close(sums.loss, -sum(float(inputs["logprobs"][place]) for place in places))
    assert sums.weight == len(places)
    assert sums.means == {"sft/loss": (sums.loss, sums.weight)}
    assert sums.largest == {}


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 3e38])
def test_masked_places_never_reach_the_imitation_loss_or_its_gradient(value):
    inputs = random_inputs(0)
    mask = jnp.asarray(inputs["mask"])
    dirty = jnp.where(mask > 0, jnp.asarray(inputs["logprobs"]), value)
    loss, gradient = jax.value_and_grad(lambda x: imitation_loss(x, mask).loss)(dirty)
    assert math.isfinite(loss)
    np.testing.assert_array_equal(gradient, -inputs["mask"])
