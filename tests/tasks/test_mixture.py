"""Which problems a step uses."""

import numpy as np
import pytest

from rlvr_jax.tasks import Example, Mixture, Task, batch, counts, modsum


def numbered(length: int | None, name: str = "numbered") -> Task:
    def example(split: str, index: int) -> Example:
        return Example(f"{name}/{split}/{index}", str(index), None, name)

    return Task(name, "none", example, lambda _split: length)


def alone(task: Task) -> Mixture:
    return Mixture((task,), (1.0,))


def places(task: Task, seed: int, steps: range, size: int) -> list[int]:
    return [int(example.prompt) for step in steps for example in batch(alone(task), "train", seed, step, size)]


@pytest.mark.parametrize("size", [1, 3, 10, 16])
def test_every_example_comes_exactly_once_per_epoch(size):
    indices = places(numbered(10), 0, range(48), size)  # 48 steps are whole epochs and a rest
    for start in range(0, len(indices) - 9, 10):
        assert sorted(indices[start : start + 10]) == list(range(10))


def test_the_stream_does_not_depend_on_the_batch_size():
    assert places(numbered(10), 3, range(30), 2) == places(numbered(10), 3, range(5), 12)
    assert places(numbered(None), 3, range(30), 2) == places(numbered(None), 3, range(5), 12)


def test_epochs_have_orders_of_their_own():
    epochs = {tuple(places(numbered(50), 0, range(epoch, epoch + 1), 50)) for epoch in range(10)}
    assert len(epochs) == 10


@pytest.mark.parametrize("length", [100, None])
def test_seeds_splits_and_tasks_differ(length):
    first = places(numbered(length), 0, range(1), 20)
    assert first != places(numbered(length), 1, range(1), 20)
    assert first != places(numbered(length, "other"), 0, range(1), 20)
    assert first != [int(example.prompt) for example in batch(alone(numbered(length)), "heldout", 0, 0, 20)]


@pytest.mark.parametrize("length", [7, None])
def test_a_batch_is_a_pure_function_of_seed_and_step(length):
    forwards = [places(numbered(length), 5, range(step, step + 1), 4) for step in range(8)]
    backwards = [places(numbered(length), 5, range(step, step + 1), 4) for step in reversed(range(8))]
    assert forwards == backwards[::-1]


def test_batches_are_the_same_in_every_process_and_version():
    assert places(numbered(10), 0, range(1), 10) == [8, 1, 7, 2, 5, 4, 9, 6, 0, 3]
    assert places(numbered(None), 0, range(1), 2) == [4675357670124122187, 8879002899838547327]


def test_a_stream_without_end_does_not_repeat_and_its_indices_fit_63_bits():
    indices = places(numbered(None), 0, range(100), 50)
    assert len(set(indices)) == 5_000
    assert 0 <= min(indices) < 2**53
    assert 2**62 < max(indices) < 2**63
    assert batch(alone(modsum()), "train", 0, 0, 4) != batch(alone(modsum()), "train", 0, 1, 4)


@pytest.mark.parametrize(
    ("length", "step", "size", "message"),
    [
        (10, 0, 0, "at least one example, size is 0"),
        (10, 0, -4, "at least one example, size is -4"),
        (10, -1, 4, "steps count from 0, step is -1"),
        (0, 0, 4, "'numbered' has no examples in split 'train'"),
    ],
)
def test_impossible_batches_are_refused(length, step, size, message):
    with pytest.raises(ValueError, match=message):
        batch(alone(numbered(length)), "train", 0, step, size)


WEIGHTS = [(1.0,), (1.0, 1.0), (0.5, 0.2, 0.3), (3.0, 0.0, 1.0), (0.1,) * 7, (1e-3, 1.0), (0.0, 2.0)]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_each_task_has_its_share_of_any_number_of_positions(weights):
    shares = np.array(weights) / sum(weights)
    for length in [*range(200), 10**9 + 7]:
        found = counts(weights, length)
        assert sum(found) == length
        assert np.all(np.abs(np.array(found) - shares * length) < len(weights))
        grown = np.array(counts(weights, length + 1)) - found
        assert sorted(grown) == [0] * (len(weights) - 1) + [1]


def test_a_task_of_a_mixture_gives_its_own_stream_in_order():
    mixture = Mixture((numbered(None, "a"), numbered(10, "b"), numbered(7, "c")), (0.5, 0.3, 0.2))
    mixed = [example for step in range(20) for example in batch(mixture, "train", 4, step, 9)]
    for task in mixture.tasks:
        own = [int(example.prompt) for example in mixed if example.task == task.name]
        assert own == places(task, 4, range(len(own)), 1)


def test_small_batches_hold_every_task_early():
    mixture = Mixture((numbered(None, "a"), numbered(None, "b"), numbered(None, "c")), (1.0, 1.0, 1.0))
    assert {example.task for example in batch(mixture, "train", 0, 0, 5)} == {"a", "b", "c"}
