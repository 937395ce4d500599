"""What a run hands to its compiled functions, held against its config: keys, temperature, reference, advantages."""

import functools
import itertools

import jax
import numpy as np
import pytest

from rlvr_jax import parallel
from rlvr_jax.training import checkpoints, functions, loop
from rlvr_jax.training.setup import make_setup
from rlvr_jax.verifiers.pool import Pool
from tests.training.test_loop import QUIET, TINY, changed, equal, rows_of

pytestmark = pytest.mark.usefixtures("one_device")


class Calls:
    """What a run hands to its compiled functions; they run as ever."""

    def __init__(self, monkeypatch):
        self.sampling, self.keys, self.temperatures, self.scored = [], [], [], []
        self.params, self.batches, self.metrics = [], [], []
        host = lambda tree: jax.tree.map(np.asarray, tree)  # noqa: E731
        make_collector, make_score, make_update = loop.make_collector, functions.make_score, functions.make_update

        def collector(setup, sampler, *arguments):
            self.sampling.append(sampler.sampling)
            made = make_collector(setup, sampler, *arguments)
            start = made.start

            def recorded(name, examples, group_size, key, temperature):
                if name in map(str, range(1, setup.config.training.num_steps + 1)):
                    self.keys.append(key.tolist())
                    self.temperatures.append(temperature)
                start(name, examples, group_size, key, temperature)

            made.start = recorded
            return made

        def score(*arguments):
            run = make_score(*arguments)

            def recorded(params, batch):
                self.scored.append(host(params))
                return run(params, batch)

            return recorded

        def update(*arguments):
            run = make_update(*arguments)

            def recorded(states, batch):
                self.params.append(host(states["policy"].params))
                self.batches.append(host(batch))
                states, metrics = run(states, batch)
                self.metrics.append(host(metrics))
                return states, metrics

            return recorded

        monkeypatch.setattr(loop, "make_collector", collector)
        monkeypatch.setattr(functions, "make_score", score)
        monkeypatch.setattr(functions, "make_update", update)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The config of a run, its workdir and its calls."""
    config = changed(
        TINY,
        reward=(("length", 1.0),),
        algorithm={
            "minibatches": 2,
            "scale": "none",
            "aggregation": "constant",
            "proximal": "recompute",
            "correction": "token_tis",
        },
        evaluation=QUIET,
    )
    with Pool(0) as pool, pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch)
        loop.train(config, workdir := tmp_path_factory.mktemp("run"), pool)
    return config, workdir, calls


def test_the_compiled_functions_get_what_the_config_says(recorded):
    config, workdir, calls = recorded
    rollout = config.rollout
    (found,) = {*calls.sampling}  # that of training and of each evaluation
    assert (found.group_size, found.batch_size) == (rollout.group_size, rollout.prompts)
    assert found.max_response_length == rollout.max_response_length

    assert calls.temperatures == [1.0, 1.0]
    key = lambda *numbers: functools.reduce(jax.random.fold_in, numbers, jax.random.key(config.seed))  # noqa: E731
    assert calls.keys == [jax.random.key_data(key(loop.SAMPLE, step)).tolist() for step in (1, 2)]

    # The reference stays what the policy was before the first update, which all four updates change.
    assert len(calls.scored) == len(calls.params) == 4
    assert all(equal(frozen, calls.params[0]) for frozen in calls.scored[::2])
    assert not any(equal(*pair) for pair in itertools.pairwise(calls.params))
    _, first, second = rows_of(workdir)
    assert 0 < first["train/kl"] < second["train/kl"]  # after the first of two minibatches
    with checkpoints.open_manager(workdir, keep=9) as manager:
        assert int(manager.restore(2)["rest"]["updates"]) == 4

    # The reward is the length, the advantage its difference from the group's mean, not divided by anything.
    for pair in (calls.batches[:2], calls.batches[2:]):
        mask, advantages = (
            np.concatenate(arrays)
            for arrays in zip(*((batch.action_mask, batch.columns["advantages"]) for batch in pair), strict=True)
        )
        lengths = mask.sum(axis=1).reshape(-1, rollout.group_size)
        expected = (lengths - lengths.mean(axis=1, keepdims=True)).reshape(-1, 1) * mask
        np.testing.assert_allclose(advantages * mask, expected, atol=1e-5)

    # The loss is divided by the budget of all samples. The ratios of the first update of a step are 1, and so is the KL
    # divergence that of the metric.
    for batch, metrics in zip(calls.batches[::2], calls.metrics[::2], strict=True):
        assert metrics["train/logprob_gap"] <= 2e-5
        kl = metrics["train/kl"] * batch.action_mask.sum()
        total = config.algorithm.kl_coef * kl - np.sum(batch.columns["advantages"], where=batch.action_mask > 0)
        expected = total / (len(batch.tokens) * rollout.max_response_length)
        assert metrics["train/loss"] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_proximal_logprobs_are_those_of_the_policy_before_the_first_update_of_the_step(recorded):
    _, workdir, calls = recorded
    assert all(equal(*pair) for pair in zip(calls.scored[1::2], calls.params[::2], strict=True))
    for batch in calls.batches:
        assert batch.columns.keys() == {"advantages", "behaviour", "proximal", "reference"}
        difference = (batch.columns["proximal"] - batch.columns["behaviour"]) * batch.action_mask
        assert np.abs(difference).max() <= 2e-5
    # Both are of the policy that sampled, which the second update of a step does not follow.
    assert calls.metrics[1]["train/logprob_gap"] > 1e-4
    assert [row["train/importance_weight"] for row in rows_of(workdir)[1:]] == pytest.approx([1.0, 1.0], abs=1e-5)


def test_without_a_reference_nothing_is_scored_and_no_parameters_are_kept(tmp_path):
    ready = make_setup(changed(TINY, algorithm={"reference": "none", "kl_coef": 0.0}))
    loss, key = functions.make_loss(ready), jax.random.wrap_key_data(np.zeros(2, np.uint32))
    columns = functions.scored_columns(ready, loss)
    assert (columns, loss.needs) == ((), ("advantages", "behaviour"))
    with parallel.use_mesh(ready.mesh), checkpoints.open_manager(tmp_path) as manager:
        learner, kept = loop.start(ready, loop.make_optimizers(ready.config), manager, key, "reference" in columns)
    assert (kept, learner.others) == (None, {})
