"""Programs: problems, splits, and demonstrations of each form."""

import pytest

from rlvr_jax.tasks import make_task
from rlvr_jax.verifiers.programs import verify


def test_examples_are_the_same_in_every_process_and_version():
    task = make_task("programs")
    example = task.example("train", 3)
    assert (example.prompt, example.gold) == ("5,16;9,72;0,-9:", "x*x-9")
    assert example.reference["outputs"][:3] == [-9, -8, -5]


def test_the_gold_program_is_right_and_prompts_and_demonstrations_fit_and_use_the_alphabet():
    task = make_task("programs")
    for split in ("train", "heldout"):
        for index in range(200):
            example = task.example(split, index)
            assert verify(example.gold, example.reference).score == 1
            said = task.demonstration(example, index)
            assert set(example.prompt + said) <= set(task.alphabet)
            assert (len(example.prompt) <= 23, len(said) <= 15) == (True, True)
            shown = [f"{x},{example.reference['outputs'][x]}" for x in example.reference["visible"]]
            assert example.prompt == ";".join(shown) + ":"


def test_demonstrations_have_the_shares_of_their_forms():
    task = make_task("programs", {"right": 0.5, "table": 0.2, "guard": 0.1})
    found = {"right": 0, "table": 0, "guard": 0, "all_visible": 0}
    for index in range(1000):
        example = task.example("train", index)
        verdict = verify(task.demonstration(example, index), example.reference)
        found["right"] += verdict.score
        for name in ("table", "guard", "all_visible"):
            found[name] += verdict.parts[name]
    assert found["right"] == pytest.approx(500, abs=60)
    assert found["table"] == pytest.approx(200, abs=40)
    assert found["guard"] == pytest.approx(100, abs=30)
    assert found["all_visible"] >= sum(found[name] for name in ("right", "table", "guard"))


def test_the_splits_share_no_problem():
    task = make_task("programs")
    known = lambda split: {  # noqa: E731
        (x.gold, tuple(sorted(x.reference["visible"]))) for x in (task.example(split, i) for i in range(500))
    }
    assert not known("train") & known("heldout")


@pytest.mark.parametrize("options", [{"right": 0.8, "table": 0.3}, {"guard": -0.1}])
def test_shares_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="shares"):
        make_task("programs", options)
