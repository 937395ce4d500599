"""One update of a tiny policy: against NumPy and finite differences, in microbatches, and with bad gradients."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch, layout
from rlvr_jax.learner.losses import imitation, policy_gradient
from rlvr_jax.learner.optimizer import OptimizerConfig, make_optimizer
from rlvr_jax.learner.scores import score
from rlvr_jax.learner.step import new_state, train_step
from tests import close
from tests.learner.by_hand import PROMPT, RESPONSE, ROWS, SHAPE, logits_by_hand, random_params, sequences

ALGORITHM = AlgorithmConfig(clip_low=0.2, clip_high=0.3, kl_coef=0.25, reference="initial")
# With an eps that is not small beside the gradients, an update is a smooth function of the gradient: Adam's first
# one is otherwise its sign, and an element whose gradient is nearly zero may go either way by rounding alone.
OPTIMIZER = OptimizerConfig(learning_rate=0.05, eps=0.01, clip_norm=0.3, weight_decay=0.1)
TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def params():
    return random_params()


@pytest.fixture(scope="module")
def own_logprobs():
    """(params, batch) -> log-probability of each action under these parameters."""
    return jax.jit(lambda params, batch: score(SHAPE, params, batch, TEMPERATURE)[0])


@pytest.fixture(scope="module")
def batch(params, own_logprobs) -> Batch:
    """A batch whose old and reference policies are near the new one."""
    rng = np.random.default_rng(2)
    batch = layout(*sequences(), PROMPT, RESPONSE)
    noise = lambda scale: rng.normal(size=(ROWS, RESPONSE)).astype(np.float32) * np.float32(scale)  # noqa: E731
    own = np.asarray(own_logprobs(params, batch))
    return batch.with_columns(
        advantages=noise(1) * batch.action_mask, behaviour=own + noise(0.3), reference=own + noise(0.3)
    )


def reinforcement(algorithm=ALGORITHM):
    return policy_gradient(SHAPE, algorithm, TEMPERATURE, RESPONSE)


def jitted(loss, optimizer, microbatches):
    """(params -> state, update) of the policy alone."""
    step = jax.jit(partial(train_step, loss, {"policy": optimizer}, microbatches))

    def update(state, batch):
        states, metrics = step({"policy": state}, batch)
        return states["policy"], metrics

    return partial(new_state, optimizer), update


@pytest.fixture(scope="module")
def adam():
    """(params -> state, update) of reinforcement learning with the optimizer of a run."""
    return jitted(reinforcement(), make_optimizer(OPTIMIZER, 100), 1)


@pytest.fixture(scope="module")
def gradient():
    """(params, batch, microbatches) -> gradient and metrics: what plain descent with rate 1 subtracts."""
    steps = {n: jitted(reinforcement(), optax.sgd(1.0), n) for n in (1, 4)}

    def run(params, batch, microbatches):
        new, update = steps[microbatches]
        state, metrics = update(new(params), batch)
        return jax.tree.map(lambda x, y: np.float64(x) - np.float64(y), params, state.params), metrics

    return run


def metrics_by_hand(params, batch):
    """Loss and its parts: means over the tokens of the whole batch."""
    tokens = []
    for row, (prompt, response) in enumerate(zip(*sequences(), strict=True)):
        logits = logits_by_hand(params, [*prompt, *response]) / TEMPERATURE
        logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        for t, token in enumerate(response):
            here = logprobs[len(prompt) + t - 1]
            old, reference, advantage = (
                float(batch.columns[name][row, t]) for name in ("behaviour", "reference", "advantages")
            )
            ratio = math.exp(here[token] - old)
            surrogate = min(
                ratio * advantage, min(max(ratio, 1 - ALGORITHM.clip_low), 1 + ALGORITHM.clip_high) * advantage
            )
            kl = math.exp(reference - here[token]) - (reference - here[token]) - 1
            tokens.append((ALGORITHM.kl_coef * kl - surrogate, -np.sum(np.exp(here) * here), kl))
    return dict(zip(("train/loss", "train/entropy", "train/kl"), np.mean(tokens, axis=0), strict=True))


@pytest.fixture(scope="module")
def gradient_by_hand(params, batch):
    """Central differences of the loss in every parameter."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    result, h = jax.tree.map(np.zeros_like, params), 1e-6
    for x, slope in zip(jax.tree.leaves(params), jax.tree.leaves(result), strict=True):
        for place in np.ndindex(x.shape):
            value, losses = x[place], []
            for shift in (h, -h):
                x[place] = value + shift
                losses.append(metrics_by_hand(params, batch)["train/loss"])
            x[place] = value
            slope[place] = (losses[0] - losses[1]) / (2 * h)
    return result


def norm_of(tree):
    return math.sqrt(sum(float(np.sum(np.float64(x) ** 2)) for x in jax.tree.leaves(tree)))


def assert_close(actual, expected, tolerance):
    """Within `tolerance` times the largest element of the tree."""
    largest = max(float(np.max(np.abs(x))) for x in jax.tree.leaves(expected))
    close.assert_close(actual, expected, tolerance, terms=largest)


def test_loss_entropy_and_kl_are_those_computed_by_hand(params, batch, gradient):
    _, metrics = gradient(params, batch, 1)
    expected = metrics_by_hand(jax.tree.map(lambda x: np.asarray(x, np.float64), params), batch)
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-5), name


def test_the_gradient_is_that_of_finite_differences(params, batch, gradient, gradient_by_hand):
    actual, metrics = gradient(params, batch, 1)
    assert_close(actual, gradient_by_hand, 5e-6)
    assert float(metrics["train/grad_norm"]) == pytest.approx(norm_of(gradient_by_hand), rel=1e-5)


def test_a_whole_update_is_adamw_on_the_clipped_gradient(params, batch, adam, gradient_by_hand):
    """The first update of Adam: both of its averages, corrected for their bias, are the gradient's own."""
    new, update = adam
    state, _ = update(new(params), batch)
    scale = min(1.0, OPTIMIZER.clip_norm / norm_of(gradient_by_hand))
    assert scale < 1, "the clip is to be tested, too"

    def by_hand(path, x, g):
        x, g = np.asarray(x, np.float64), g * scale
        decay = 0.0 if path[-1].key.endswith(("norm", "bias")) else OPTIMIZER.weight_decay
        return x - OPTIMIZER.learning_rate * (g / (np.abs(g) + OPTIMIZER.eps) + decay * x)

    expected = jax.tree_util.tree_map_with_path(by_hand, params, gradient_by_hand)
    assert_close(state.params, expected, 2e-6)
    assert int(state.updates) == 1
    assert int(state.skipped) == 0


def test_microbatches_give_the_update_and_metrics_of_the_whole_batch(params, batch, gradient):
    """They hold different numbers of actions, so a mean of their means would be another update."""
    counts = batch.action_mask.reshape(-1, 4, RESPONSE).sum(axis=(0, 2))
    assert len(set(counts.tolist())) > 1
    (whole, whole_metrics), (parts, parts_metrics) = (gradient(params, batch, n) for n in (1, 4))
    assert_close(parts, whole, 1e-6)
    assert parts_metrics.keys() == whole_metrics.keys()
    for name, value in whole_metrics.items():
        assert float(parts_metrics[name]) == pytest.approx(float(value), rel=1e-6, abs=1e-7), name


def test_every_token_weighs_the_same_whatever_the_length_of_its_response(params, batch, gradient):
    """The gradient of the batch is the mean of its halves' gradients, weighed by their actions."""
    halves = [batch.replace(action_mask=batch.action_mask * keep[:, None]) for keep in np.eye(2).repeat(4, axis=1)]
    halves = [half.replace(action_mask=half.action_mask.astype(np.float32)) for half in halves]
    counts = [float(half.action_mask.sum()) for half in halves]
    assert counts[0] != counts[1]
    first, second = (gradient(params, half, 1)[0] for half in halves)
    expected = jax.tree.map(lambda x, y: (counts[0] * x + counts[1] * y) / sum(counts), first, second)
    assert_close(gradient(params, batch, 1)[0], expected, 1e-6)


def test_what_padding_holds_changes_nothing(params, batch, gradient):
    padding = batch.segment_ids == 0
    dirty = batch.replace(
        tokens=np.where(padding, 6, batch.tokens),
        positions=np.where(padding, 3, batch.positions),
    ).with_columns(
        advantages=np.where(batch.action_mask > 0, batch.columns["advantages"], np.float32(math.nan)),
        behaviour=np.where(batch.action_mask > 0, batch.columns["behaviour"], np.float32(-math.inf)),
    )
    (clean_gradient, _), (dirty_gradient, _) = gradient(params, batch, 1), gradient(params, dirty, 1)
    jax.tree.map(np.testing.assert_array_equal, dirty_gradient, clean_gradient)


def test_the_logprob_gap_is_rounding_alone_when_the_old_policy_is_the_new_one(params, batch, adam, own_logprobs):
    new, update = adam
    own = np.asarray(own_logprobs(params, batch))
    _, metrics = update(new(params), batch.with_columns(behaviour=own))
    assert float(metrics["train/logprob_gap"]) <= 1e-6
    assert float(metrics["train/clip_fraction"]) == 0


def test_the_logprob_gap_is_the_largest_difference_on_any_action(params, batch, adam, own_logprobs):
    new, update = adam
    own = np.asarray(own_logprobs(params, batch))
    _, metrics = update(new(params), batch)
    expected = np.max(np.abs(own - batch.columns["behaviour"]) * batch.action_mask)
    assert float(metrics["train/logprob_gap"]) == pytest.approx(float(expected), rel=1e-5)


def test_the_kl_to_the_reference_is_zero_for_itself_and_enters_the_loss_with_its_weight(
    params, batch, adam, own_logprobs
):
    new, update = adam
    own = np.asarray(own_logprobs(params, batch))
    _, near = update(new(params), batch.with_columns(reference=own))
    _, far = update(new(params), batch)
    assert abs(float(near["train/kl"])) <= 1e-6
    assert float(far["train/kl"]) > 1e-3
    difference = float(far["train/loss"]) - float(near["train/loss"])
    assert difference == pytest.approx(ALGORITHM.kl_coef * float(far["train/kl"]), rel=1e-4)


def test_no_two_arrays_of_a_new_state_share_memory_so_that_all_can_be_donated(params):
    state = new_state(make_optimizer(OPTIMIZER, 100), params)
    addresses = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    assert len(set(addresses)) == len(addresses)


def test_an_update_is_the_same_to_the_bit_when_it_is_done_again(params, batch, adam):
    new, update = adam
    jax.tree.map(np.testing.assert_array_equal, update(new(params), batch), update(new(params), batch))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_changes_no_bit_of_parameters_and_optimizer_and_is_counted(
    params, batch, adam, value
):
    new, update = adam
    before, _ = update(new(params), batch)  # moments that are not zero
    advantages = batch.columns["advantages"].copy()
    advantages[0, 0] = value
    after, metrics = update(before, batch.with_columns(advantages=advantages))
    jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt_state), (before.params, before.opt_state))
    assert [int(x) for x in (after.updates, after.skipped, after.skipped_in_a_row)] == [2, 1, 1]
    assert not math.isfinite(metrics["train/grad_norm"])


def test_a_good_update_ends_the_row_of_skipped_ones_and_is_as_if_they_had_not_been(params, batch, adam):
    new, update = adam
    bad = batch.with_columns(advantages=np.full_like(batch.action_mask, math.nan))
    state, counts = new(params), []
    for each in (bad, bad, batch, bad):
        state, _ = update(state, each)
        counts.append((int(state.updates), int(state.skipped), int(state.skipped_in_a_row)))
    assert counts == [(1, 1, 1), (2, 2, 2), (3, 2, 0), (4, 3, 1)]
    never_skipped, _ = update(new(params), batch)
    jax.tree.map(
        np.testing.assert_array_equal,
        (state.params, state.opt_state),
        (never_skipped.params, never_skipped.opt_state),
    )


def test_a_batch_without_actions_has_loss_and_gradient_zero(params, batch, gradient):
    change, metrics = gradient(params, batch.replace(action_mask=np.zeros_like(batch.action_mask)), 1)
    assert not any(np.any(x) for x in jax.tree.leaves(change))
    assert float(metrics["train/loss"]) == 0


def test_imitation_learns_the_demonstrations(params):
    prompts, responses = sequences()
    prompts = [[i % 7, *prompt][:PROMPT] for i, prompt in enumerate(prompts)]
    new, update = jitted(imitation(SHAPE), make_optimizer(OptimizerConfig(learning_rate=0.03), 150), 1)
    state, batch, losses = new(params), layout(prompts, responses, PROMPT, RESPONSE), []
    for _ in range(150):
        state, metrics = update(state, batch)
        losses.append(float(metrics["sft/loss"]))
    assert losses[0] > 1.5
    assert losses[-1] < 0.5


def test_an_update_keeps_every_dtype_and_moments_and_metrics_are_float32(params, batch):
    optimizer = make_optimizer(OPTIMIZER, 100)
    params = jax.tree.map(lambda x: x.astype("bfloat16"), jax.device_get(params))
    state = new_state(optimizer, params)
    step = partial(train_step, reinforcement(), {"policy": optimizer}, 2)
    states, metrics = jax.eval_shape(step, {"policy": state}, batch)
    after = states["policy"]
    jax.tree.map(lambda x, y: np.testing.assert_equal((x.shape, x.dtype), (y.shape, y.dtype)), after, state)
    assert {x.dtype for x in jax.tree.leaves(after.params)} == {jnp.dtype("bfloat16")}
    assert {x.dtype for x in jax.tree.leaves(after.opt_state)} == {jnp.dtype("float32"), jnp.dtype("int32")}
    assert {x.dtype for x in metrics.values()} == {jnp.dtype("float32")}


def test_a_batch_without_a_column_that_the_loss_needs_is_refused_by_its_name(params, batch):
    step = partial(train_step, reinforcement(), {"policy": optax.sgd(1.0)}, 1)
    states = {"policy": new_state(optax.sgd(1.0), params)}
    with pytest.raises(ValueError, match="advantages, reference"):
        jax.eval_shape(step, states, batch.replace(columns={"behaviour": batch.columns["behaviour"]}))


@pytest.mark.parametrize(("microbatches", "together"), [(3, 1), (4, 4)])
def test_rows_that_cannot_be_divided_are_refused_with_their_numbers(params, batch, microbatches, together):
    loss = replace(reinforcement(), rows_together=together)
    step = partial(train_step, loss, {"policy": optax.sgd(1.0)}, microbatches)
    with pytest.raises(ValueError, match=f"{ROWS} rows.* {together} .* {microbatches} microbatches"):
        jax.eval_shape(step, {"policy": new_state(optax.sgd(1.0), params)}, batch)
