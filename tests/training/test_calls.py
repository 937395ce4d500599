"""What a run hands to its compiled functions, held against its config: keys, temperature, reference, advantages."""

import functools
import itertools

import jax
import numpy as np

from rlvr_jax.rollout import engine
from rlvr_jax.training import checkpoints, loop
from rlvr_jax.verifiers.pool import Pool
from tests.training.test_loop import TINY, changed, equal, rows_of


class Calls:
    """What a run hands to its compiled functions; they run as ever."""

    def __init__(self, monkeypatch):
        self.sampling, self.keys, self.temperatures, self.frozen, self.params, self.batches = [], [], [], [], [], []
        host = lambda tree: jax.tree.map(np.asarray, tree)  # noqa: E731
        make_stream, make_score, make_update = engine.make_stream, loop.make_score, loop.make_update

        def stream(config, sampling, *others):
            self.sampling.append(sampling)
            run = make_stream(config, sampling, *others)

            def recorded(params, examples, key, temperature=1.0, *rest):
                if sampling.group_size == TINY.rollout.group_size:
                    self.keys.append(np.asarray(jax.random.key_data(key)).tolist())
                    self.temperatures.append(temperature)
                return run(params, examples, key, temperature, *rest)

            return recorded

        def score(setup):
            run = make_score(setup)

            def recorded(params, batch):
                self.frozen.append(host(params))
                return run(params, batch)

            return recorded

        def update(*arguments):
            run = make_update(*arguments)

            def recorded(state, batch):
                self.params.append(host(state.params))
                self.batches.append(host(batch))
                return run(state, batch)

            return recorded

        monkeypatch.setattr(engine, "make_stream", stream)
        monkeypatch.setattr(loop, "make_score", score)
        monkeypatch.setattr(loop, "make_update", update)


def test_the_compiled_functions_get_what_the_config_says(tmp_path, monkeypatch):
    calls = Calls(monkeypatch)
    config = changed(
        TINY,
        rollout={"temperature": 0.7, "top_k": 5, "top_p": 0.9},
        reward=(("length", 1.0),),
        algorithm={"minibatches": 2, "scale": "none"},
        evaluation={"pass_problems": 0},
    )
    with Pool(0) as pool:
        loop.train(config, tmp_path, pool)
    rollout = config.rollout
    sampling, greedy = calls.sampling
    assert (sampling.group_size, greedy.group_size) == (rollout.group_size, 1)
    for found in calls.sampling:
        assert (found.top_k, found.top_p, found.policy_temperature) == (5, 0.9, 0.7)
        assert found.max_response_length == rollout.max_response_length

    assert calls.temperatures == [0.7, 0.7]
    key = lambda *numbers: functools.reduce(jax.random.fold_in, numbers, jax.random.key(config.seed))  # noqa: E731
    assert calls.keys == [jax.random.key_data(key(loop.SAMPLE, step)).tolist() for step in (1, 2)]

    # The reference stays what the policy was before the first update, which all four updates change.
    assert len(calls.frozen) == 2
    assert len(calls.params) == 4
    assert all(equal(frozen, calls.params[0]) for frozen in calls.frozen)
    assert not any(equal(*pair) for pair in itertools.pairwise(calls.params))
    _, first, second = rows_of(tmp_path)
    assert 0 < first["train/kl"] < second["train/kl"]  # after the first of two minibatches
    with checkpoints.open_manager(tmp_path, keep=9) as manager:
        assert int(manager.restore(2)["rest"]["updates"]) == 4

    # The reward is the length, the advantage its difference from the group's mean, not divided by anything.
    for pair in (calls.batches[:2], calls.batches[2:]):
        mask, advantages = (
            np.concatenate([getattr(batch, name) for batch in pair]) for name in ("action_mask", "advantages")
        )
        lengths = mask.sum(axis=1).reshape(-1, rollout.group_size)
        expected = (lengths - lengths.mean(axis=1, keepdims=True)).reshape(-1, 1) * mask
        np.testing.assert_allclose(advantages * mask, expected, atol=1e-5)
