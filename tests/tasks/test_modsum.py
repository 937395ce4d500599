"""ModSum: problems, splits and demonstrations."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.tasks import Example, draw, modsum, place_of, split_of, uniform


def test_examples_are_the_same_in_every_process_and_version():
    task = modsum()
    assert task.example("train", 0) == Example("modsum/train/0", "455433=", "4", "modsum")
    assert task.example("train", 2**63 - 1).prompt == "305935="
    assert task.example("heldout", 0).prompt == "025177="
    assert [task.demonstration(task.example("train", index), index) for index in range(3)] == [
        "94814#4",
        "31606#6",
        "#9",
    ]


def test_examples_do_not_depend_on_the_hash_seed_of_the_process():
    program = (
        "from rlvr_jax.tasks import modsum; t = modsum(); e = t.example('train', 5); print(e, t.demonstration(e, 1))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("0", "1")
    }
    task = modsum()
    example = task.example("train", 5)
    assert outputs == {f"{example} {task.demonstration(example, 1)}\n"}


def test_train_and_heldout_never_share_a_problem():
    task = modsum(digits=3)  # 1,000 problems, so that both samples cover nearly all of theirs
    train = {task.example("train", index).prompt for index in range(5_000)}
    heldout = {task.example("heldout", index).prompt for index in range(2_000)}
    assert not train & heldout
    assert len(train) + len(heldout) > 980
    assert 70 < len(heldout) < 130  # a tenth


@given(digits=st.integers(4, 40), index=st.integers(0, 2**63 - 1), split=st.sampled_from(["train", "heldout"]))
@settings(max_examples=50, deadline=None)
def test_prompt_has_the_digits_and_the_reference_is_their_sum_modulo_10(digits, index, split):
    task = modsum(digits)
    example = task.example(split, index)
    number = example.prompt.removesuffix("=")
    assert len(number) == digits
    assert example.prompt == number + "="
    assert example.reference == str(sum(map(int, number)) % 10)
    assert set(example.prompt + task.demonstration(example, index)) <= set(task.alphabet)
    assert place_of(example) == (split, index)


def test_demonstrations_write_the_running_sums_from_the_second_on():
    task = modsum(direct_share=0.0)
    assert task.demonstration(Example("modsum/train/0", "680845=", "1", "modsum"), 0) == "44261#1"
    assert task.demonstration(Example("modsum/train/0", "7=", "7", "modsum"), 0) == "#7"


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6, 1.0])
def test_the_wanted_share_of_demonstrations_is_direct(share):
    task = modsum(direct_share=share)
    examples = [task.example("train", index) for index in range(4_000)]
    direct = [task.demonstration(example, 0) == "#" + example.reference for example in examples]
    assert sum(direct) / len(direct) == pytest.approx(share, abs=0.03)  # 4 standard deviations
    assert all(task.demonstration(example, 0).endswith("#" + example.reference) for example in examples[:100])


def test_another_index_draws_another_demonstration_of_the_same_example():
    task = modsum()
    example = task.example("train", 0)
    assert {len(task.demonstration(example, index)) for index in range(50)} == {2, 7}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digits": 0}, "digits must be from 1 to 100, not 0"),
        ({"digits": 101}, "digits must be from 1 to 100, not 101"),
        ({"direct_share": -0.1}, "direct_share must be from 0 to 1, not -0.1"),
        ({"direct_share": 1.5}, "direct_share must be from 0 to 1, not 1.5"),
        ({"direct_share": float("nan")}, "direct_share must be from 0 to 1, not nan"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        modsum(**options)


def test_even_single_digits_are_held_out_from_training():
    task = modsum(digits=1)
    train = {task.example("train", index).prompt for index in range(200)}
    heldout = {task.example("heldout", index).prompt for index in range(200)}
    assert (len(train), len(heldout), len(train & heldout)) == (8, 2, 0)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="no problem belongs to the split 'test'"):
        modsum().example("test", 0)


def test_a_negative_index_is_refused():
    with pytest.raises(IndexError, match="at least 0, not -1"):
        modsum().example("train", -1)


def test_draws_are_the_same_for_ever():
    assert draw("a", 1) >> 448 == 420144133383829467
    assert uniform("a", 1) == 0.022776059108589264
    assert split_of("modsum/455433") == "train"


def test_uniform_draws_fill_the_unit_interval_evenly():
    draws = [uniform("evenly", index) for index in range(10_000)]
    assert 0 <= min(draws) < 0.001
    assert 0.999 < max(draws) < 1
    assert sum(draws) / len(draws) == pytest.approx(0.5, abs=0.012)  # 4 standard deviations
