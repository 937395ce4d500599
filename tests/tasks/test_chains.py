"""Running sums by number of additions."""

import itertools

import pytest

from rlvr_jax.tasks import make_task
from rlvr_jax.verifiers.modsum import verify_chain


def test_the_answer_is_the_running_sums_and_the_level_the_number_of_digits_that_are_not_zero():
    task = make_task("chains")
    examples = [task.example("train", i) for i in range(200)]
    for example in examples:
        digits = [int(x) for x in example.prompt.removesuffix("=")]
        sums = [x % 10 for x in itertools.accumulate(digits)]
        assert example.reference == "".join(map(str, sums[1:])) + f"#{sums[-1]}" == task.demonstration(example, 3)
        assert example.level == str(sum(x > 0 for x in digits))
        assert set(example.prompt + example.reference) <= set(task.alphabet)
    assert {example.level for example in examples} == set(task.levels) == set("123456")


@pytest.mark.parametrize("nonzero", [1, 3, 6])
def test_a_task_of_one_level_has_no_levels_and_its_splits_share_no_problem(nonzero):
    task = make_task("chains", {"nonzero": nonzero})
    splits = [{task.example(split, i).prompt for i in range(100)} for split in ("train", "heldout")]
    assert not splits[0] & splits[1]
    assert all(6 - prompt.count("0") == nonzero for prompt in splits[0] | splits[1])
    assert (task.levels, task.example("train", 0).level) == ((), "")


@pytest.mark.parametrize("options", [{"digits": 1}, {"digits": 21}, {"nonzero": 7}, {"nonzero": -1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        make_task("chains", options)


def test_a_chain_with_one_mistake_is_wrong():
    assert [verify_chain(x, "33222#2").score for x in ("33222#2", "33232#2", "#2", "33222#2 ")] == [1, 0, 0, 0]
