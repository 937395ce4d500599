"""The loss of pairs of the policy's own samples against float64 NumPy, on rows in any order, padding among them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import in_groups, layout
from rlvr_jax.learner.own_pairs import own_pairs, pair_loss
from tests.close import assert_close
from tests.learner.by_hand import SHAPE

BETAS = {"dpo": 0.3, "dpo_norm": 3.0, "ipo": 0.4, "simpo": 2.0}
SIGNS = (1, -1, -1, 1, 1, -1)  # of three pairs; a fourth group has none
LENGTHS = (4, 2, 1, 3, 5, 5)


def inputs():
    """A batch of four groups of two rows, the log-probs of its actions, and its columns as they were drawn."""
    rng = np.random.default_rng(0)
    batch = layout([[1, 2]] * 6, [[3] * n for n in LENGTHS], 2, 5)
    batch = in_groups(batch, np.arange(6) // 2, 4, 2)
    of = lambda: rng.normal(-2, 1, batch.action_mask.shape)  # noqa: E731
    logprobs, reference, entropy = of(), of(), np.abs(of())
    signs = np.array([*SIGNS, 0, 0])[:, None] * batch.action_mask
    columns = {"advantages": signs, "reference": reference, "behaviour": logprobs + 0.25}
    batch = batch.with_columns(**{name: np.float32(x) for name, x in columns.items()})
    return jax.device_put(batch), logprobs, reference, entropy


def by_hand(name: str, beta: float, logprobs, reference) -> list[float]:
    found = []
    for i in range(3):
        w, l = (2 * i, 2 * i + 1) if SIGNS[2 * i] > 0 else (2 * i + 1, 2 * i)  # noqa: E741
        policy, ref = ([np.sum(x[row, : LENGTHS[row]]) for row in (w, l)] for x in (logprobs, reference))
        d, lengths = np.subtract(policy, ref), [LENGTHS[w], LENGTHS[l]]
        z = {
            "dpo": beta * (d[0] - d[1]),
            "dpo_norm": beta * (d[0] / lengths[0] - d[1] / lengths[1]),
            "ipo": d[0] - d[1] - 1 / (2 * beta),
            "simpo": beta * (policy[0] / lengths[0] - policy[1] / lengths[1]),
        }[name]
        found.append(z**2 if name == "ipo" else np.log1p(np.exp(-z)))
    return found


@pytest.mark.parametrize("name", BETAS)
def test_the_loss_of_the_best_and_the_worst_sample_is_that_of_the_formula(name):
    batch, logprobs, reference, entropy = inputs()
    config = AlgorithmConfig(preference=name, preference_beta=BETAS[name])

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradient_and_sums(logprobs):
        sums = pair_loss(config, logprobs, jnp.float32(entropy), batch)
        return sums.loss, sums

    gradient, sums = gradient_and_sums(jnp.float32(logprobs))
    expected = by_hand(name, BETAS[name], logprobs, reference)
    assert sums.weight == 3
    assert_close(sums.loss, np.sum(expected), 2e-6)
    step, differences = 1e-6, np.zeros_like(logprobs)
    for place in zip(*np.nonzero(np.asarray(batch.action_mask)), strict=True):
        moved = np.zeros_like(logprobs)
        moved[place] = step
        above, below = (np.sum(by_hand(name, BETAS[name], logprobs + x, reference)) for x in (moved, -moved))
        differences[place] = (above - below) / (2 * step)
    assert_close(gradient, differences, 1e-5)
    assert sums.means["preferences/loss"][1] == 3
    mask = np.asarray(batch.action_mask)
    assert_close(sums.means["train/entropy"][0], np.sum(mask * entropy), 1e-5)
    assert_close(sums.largest["train/logprob_gap"], 0.25, 1e-5)
    if name == "simpo":
        assert "train/kl" not in sums.means
    else:
        assert_close(sums.means["train/kl_sample"][0] / 6, np.sum(mask * (logprobs - reference)) / 6, 1e-5)


def test_a_sample_is_all_its_context_windows():
    """Groups of 4 samples of up to 2 windows, 8 rows, of which the kept ones come first."""
    rng = np.random.default_rng(1)
    lengths, sides = [3, 4, 1, 2, 5, 2, 3], [-1, 1, 1, 1, 1, -1, -1]
    batch = in_groups(layout([[1]] * 7, [[3] * n for n in lengths], 1, 5), np.array([0] * 3 + [1] * 4), 2, 8)
    logprobs, reference = rng.normal(-2, 1, (2, *batch.action_mask.shape))
    rows = np.array([*sides[:3], *[0] * 5, *sides[3:], *[0] * 4])
    columns = {"advantages": rows[:, None] * batch.action_mask, "reference": reference, "behaviour": logprobs}
    batch = jax.device_put(batch.with_columns(**{name: np.float32(x) for name, x in columns.items()}))
    config = AlgorithmConfig(preference="dpo", preference_beta=0.3)
    found = jax.jit(partial(pair_loss, config, windows=2))(jnp.float32(logprobs), batch.action_mask * 0, batch)
    ratios = np.sum(np.asarray(batch.action_mask) * (logprobs - reference), axis=1)
    gaps = [np.sum(rows[i : i + 4] * ratios[i : i + 4]) for i in (0, 8)]
    assert found.weight == 2
    assert_close(found.loss, np.sum(np.log1p(np.exp(-0.3 * np.array(gaps)))), 2e-6)
    assert own_pairs(SHAPE, config, 1.0, windows=2).rows_together == 4


def test_it_needs_a_reference_policy_unless_its_loss_has_none():
    needs = {name: own_pairs(SHAPE, AlgorithmConfig(preference=name), 1.0).needs for name in BETAS}
    assert ["reference" in x for x in needs.values()] == [True, True, True, False]
