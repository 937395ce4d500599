import numpy as np
import pytest

from rlvr_jax.learner.vine import step_advantages

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_steps_advantage_is_the_change_of_value_and_at_the_end_the_reward(count):
    rng = np.random.default_rng(count)
    reward, values = float(rng.normal()), rng.normal(size=count).tolist()
    found = step_advantages(reward, values, count)
    for k in range(count):
        expected = values[k + 1] - values[k] if k + 1 < count else reward - values[k]
        assert found[k] == pytest.approx(expected)
    assert found.sum() == pytest.approx(reward - values[0])  # as an episode's, with the value of its prompt as baseline


def test_steps_after_the_last_state_with_a_value_have_no_advantage():
    np.testing.assert_allclose(step_advantages(2.0, [0.5, 0.25], 5), [-0.25, 1.75, 0, 0, 0])
    np.testing.assert_allclose(step_advantages(2.0, [], 2), [0, 0])
    assert step_advantages(2.0, [], 0).shape == (0,)
