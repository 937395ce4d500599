"""IFEval as a task."""

import pytest

from tests.data.read import rows


@pytest.fixture(scope="module")
def published(data_sets) -> list[dict]:
    return rows(data_sets / "ifeval" / "prompts.jsonl")


def test_all_prompts_are_held_out_to_the_letter_with_what_the_verifier_needs(real_task, published):
    task = real_task("ifeval")
    assert (task.num_examples("train"), task.num_examples("heldout")) == (0, len(published))
    assert task.verifier == "constraints"
    for index, record in enumerate(published):
        example = task.example("heldout", index)
        assert example.prompt == record["prompt"]
        assert example.reference == {key: record[key] for key in ("prompt", "instruction_id_list", "kwargs")}
        assert len(example.reference["instruction_id_list"]) == len(example.reference["kwargs"]) > 0


def test_a_share_can_be_given_to_training(real_task, published):
    task = real_task("ifeval", heldout_share=0.25)
    sizes = {split: task.num_examples(split) for split in ("train", "heldout")}
    assert sum(sizes.values()) == len(published)
    assert 0.1 < sizes["heldout"] / len(published) < 0.4
    prompts = [task.example(split, index).prompt for split, size in sizes.items() for index in range(size)]
    assert set(prompts) == {record["prompt"] for record in published}


def test_an_impossible_share_is_refused(real_task):
    with pytest.raises(ValueError, match=r"ifeval: heldout_share must be from 0 to 1, not 1\.5"):
        real_task("ifeval", heldout_share=1.5)
