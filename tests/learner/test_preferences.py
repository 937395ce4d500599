"""Losses of preferences against float64 NumPy, and their numbers of completions against a policy in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax import policy
from rlvr_jax.evaluation.preferences import calibration, describe
from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.packing import pack
from rlvr_jax.learner.preferences import (
    LOSSES,
    Pairs,
    columns_of,
    of_completions,
    pairs_of,
    preference_loss,
    sums_of,
    values_of,
)
from rlvr_jax.learner.step import dealt
from rlvr_jax.learner.supervised import PreferencesConfig
from tests.close import assert_close
from tests.learner.by_hand import SHAPE, hidden_by_hand, logits_by_hand, random_params

CHOICES = {
    "dpo": {"beta": 0.7, "label_smoothing": 0.1, "margin": 0.3},
    "dpo_norm": {"beta": 5.0, "label_smoothing": 0.2},
    "ipo": {"beta": 0.4},
    "simpo": {"beta": 2.0, "margin": 0.6},
    "kto": {"beta": 0.5, "desirable": 1.0, "undesirable": 1.3},
    "bradley_terry": {"margin": 0.5, "centring": 0.01},
}


def config_of(loss: str, **others) -> PreferencesConfig:
    return PreferencesConfig(loss=loss, **CHOICES[loss], **others)


def random_pairs(count: int = 9, dtype=np.float64) -> Pairs:
    rng = np.random.default_rng(0)
    numbers = rng.normal(-6, 3, (2, count, 2))
    lengths, margin = rng.integers(1, 9, (count, 2)), rng.uniform(0.5, 3, count)
    fields = (*numbers, lengths, margin, np.arange(count) % 3 > 0, np.full(count, 0.8))
    return Pairs(*(np.asarray(x, dtype) for x in fields))


def by_hand(c: PreferencesConfig, x: Pairs) -> np.ndarray:
    """The losses of pairs, from the papers' formulas."""
    loss, sigmoid = c.loss, lambda z: 1 / (1 + np.exp(-z))
    d = x.values - x.reference
    if loss in ("dpo", "dpo_norm"):
        scaled = d if loss == "dpo" else d / x.lengths
        z = c.beta * (scaled[:, 0] - scaled[:, 1]) - c.margin * x.margin
        return -(1 - c.label_smoothing) * np.log(sigmoid(z)) - c.label_smoothing * np.log(sigmoid(-z))
    if loss == "ipo":
        return (d[:, 0] - d[:, 1] - 1 / (2 * c.beta)) ** 2
    if loss == "simpo":
        per_token = x.values / x.lengths
        return -np.log(sigmoid(c.beta * per_token[:, 0] - c.beta * per_token[:, 1] - c.margin * x.margin))
    if loss == "kto":
        good = c.desirable * (1 - sigmoid(c.beta * (d[:, 0] - x.baseline)))
        return np.where(x.good > 0, good, c.undesirable * (1 - sigmoid(c.beta * (x.baseline - d[:, 0]))))
    difference = x.values[:, 0] - x.values[:, 1]
    return -np.log(sigmoid(difference - c.margin * x.margin)) + c.centring * x.values.sum(axis=1) ** 2


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_and_its_gradient_are_those_of_its_formula(loss):
    x, real = random_pairs(), np.arange(9) < 7
    expected = by_hand(config_of(loss), x)[real]
    single = jax.tree.map(jnp.float32, x)
    found = sums_of(config_of(loss), single, real)
    assert_close(found.loss, expected.sum(), 2e-6)
    assert found.weight == 7
    assert_close(found.means["preferences/loss"][0], expected.sum(), 2e-6)
    gradient = jax.grad(lambda values: sums_of(config_of(loss), single.replace(values=values), real).loss)(
        single.values
    )
    step, differences = 1e-6, np.zeros_like(x.values)
    for place in np.ndindex(x.values.shape):
        moved = np.zeros_like(x.values)
        moved[place] = step
        above, below = (by_hand(config_of(loss), x.replace(values=x.values + sign * moved)) for sign in (1, -1))
        differences[place] = np.sum((above - below) / (2 * step) * real)
    assert_close(gradient, differences, 1e-5)
    assert not np.asarray(gradient)[7:].any()


def test_the_metrics_of_pairs():
    x, real = random_pairs(), np.ones(9, bool)
    means = sums_of(config_of("dpo"), jax.tree.map(jnp.float32, x), real).means
    d = x.values - x.reference
    expected = {
        "preferences/margin": 0.7 * (d[:, 0] - d[:, 1]).mean(),
        "preferences/accuracy": (d[:, 0] > d[:, 1]).mean(),
        "preferences/chosen_logprob": x.values[:, 0].mean(),
        "preferences/rejected_reward": 0.7 * d[:, 1].mean(),
        "preferences/log_ratio": d.mean(),
    }
    for name, value in expected.items():
        assert_close(means[name][0] / means[name][1], value, 1e-5)
    means = sums_of(config_of("kto"), jax.tree.map(jnp.float32, x), real).means
    assert_close(means["preferences/good_logprob"][0] / 6, x.values[x.good > 0, 0].mean(), 1e-5)
    assert means["preferences/bad_reward"][1] == 3


PROMPTS = [[3, 1], [2], [6, 5, 1], [1, 4]]
COMPLETIONS = [([2, 5, 1], [4, 1]), ([3], [5, 6, 2, 1]), ([1, 1, 2, 4], [6]), ([5, 2], [2, 3, 3, 1])]


def rows(packing: str):
    prompts = [prompt for prompt in PROMPTS for _ in range(2)]
    batch = layout(prompts, [y for pair in COMPLETIONS for y in pair], 3, 4)
    columns = np.random.default_rng(2).normal(-2, 1, batch.action_mask.shape).astype(np.float32)
    batch = batch.with_columns(reference=columns)
    return pack(batch, 2) if packing == "prefix_tree" else batch


def values_by_hand(params, network: str) -> np.ndarray:
    found = []
    for prompt, pair in zip(PROMPTS, COMPLETIONS, strict=True):
        for completion in pair:
            tokens = [*prompt, *completion]
            if network == "reward":
                found.append(hidden_by_hand(params, tokens)[-1] @ params["value"])
                continue
            logits = logits_by_hand(params, tokens)
            logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            found.append(sum(logprobs[len(prompt) - 1 + t, y] for t, y in enumerate(completion)))
    return np.array(found).reshape(-1, 2)


@pytest.mark.parametrize("network", ["policy", "reward"])
def test_pairs_in_one_row_or_two_have_the_numbers_of_the_model(network):
    params = random_params()
    if network == "reward":
        head = np.random.default_rng(3).normal(size=SHAPE.width)
        params = policy.with_value_head(SHAPE, params) | {"value": jnp.float32(head)}
    expected = values_by_hand(jax.tree.map(np.float64, params), network)
    loss = "bradley_terry" if network == "reward" else "dpo_norm"
    gradients = []
    for packing in ("none", "prefix_tree"):
        config, batch = config_of(loss, packing=packing), rows(packing)
        with_values = jax.jit(partial(values_of, SHAPE, LOSSES[loss]))
        values = with_values(params, batch)
        assert_close(values, expected, 3e-6)
        pairs = pairs_of(batch, values)
        assert pairs.lengths.tolist() == [[len(y) for y in pair] for pair in COMPLETIONS]
        if network == "policy":
            assert_close(pairs.reference, of_completions(rows("none"), rows("none").columns["reference"] *
                                                         rows("none").action_mask), 1e-6)  # fmt: skip
        made = preference_loss(SHAPE, config)
        assert (made.rows_together, "reference" in made.needs) == (2 - (packing != "none"), network == "policy")
        if network == "policy":  # whose gradient is that of log-probs, see `test_packing`
            continue
        parts = dealt(jax.device_put(batch), 2, made.rows_together)
        of_part = jax.jit(jax.grad(lambda params, part, made=made: made.sums({network: params}, part).loss))
        first, second = (of_part(params, jax.tree.map(lambda x, i=i: np.asarray(x)[i], parts)) for i in range(2))
        gradients.append(jax.tree.map(np.add, first, second))
    if gradients:
        assert_close(gradients[0], gradients[1])


def test_columns_are_those_that_a_loss_reads():
    assert columns_of(config_of("dpo")) == ("reference", "pair_margin")
    assert columns_of(config_of("ipo")) == ("reference",)
    assert columns_of(config_of("kto")) == ("reference", "good", "baseline")
    assert columns_of(PreferencesConfig(loss="bradley_terry")) == ()


def test_held_out_numbers_count_ties_half_and_see_a_bias_for_length():
    rewards = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [3.0, 0.0]])
    lengths = np.array([[5, 2], [3, 4], [2, 2], [9, 1]], float)
    found = describe(rewards, lengths)
    assert found["eval/preference_accuracy"] == 2.5 / 4
    assert found["eval/preference_pairs"] == 4
    assert found["eval/preference_margin"] == 1.0
    assert found["eval/longer_chosen"] == 2 / 3
    assert found["eval/longer_preferred"] == 1.0
    assert 0.9 < found["eval/length_correlation"] <= 1
    assert found["eval/preference_accuracy_low"] < 2.5 / 4 < found["eval/preference_accuracy_high"]
    bins = calibration(rewards[:, 0] - rewards[:, 1])
    assert [x.count for x in bins] == [1, 1, 1, 1]
    assert [x.right[0] for x in bins] == [0.5, 0.0, 1.0, 1.0]
    expected = np.mean([abs(1 / (1 + np.exp(-m)) - r) for m, r in ((0, 0.5), (1, 0), (2, 1), (3, 1))])
    assert found["eval/calibration_error"] == pytest.approx(expected)
