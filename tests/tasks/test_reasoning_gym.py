"""reasoning-gym's data sets as tasks: the same problems in every process, splits apart, mistakes named."""

import importlib
import json
import os
import random
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest

from rlvr_jax.tasks.reasoning_gym import problem, reasoning_gym
from rlvr_jax.verifiers import verify

module = importlib.import_module("rlvr_jax.tasks.reasoning_gym")  # the package may have a function of that name
# Those that take long to make, that need a fixed hash seed, and the one that is refused, are left out of this module's
# test of all.
SLOW = {"acre", "arc_agi", "codeio", "futoshiki", "puzzle24", "quantum_lock", "rearc", "zebra_puzzles"}
NO_ANSWERS = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}


def names():
    reasoning_gym("chain_sum")  # whatever it takes to import the package
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - SLOW - module._HASHING - set(module._REFUSED))


def test_every_data_set_makes_problems_and_its_own_answer_is_right():
    assert len(names()) > 80
    for name in names():
        task = reasoning_gym(name)
        example = task.example("train", 0)
        assert example.id == f"reasoning_gym.{name}/train/0"
        assert example.prompt.endswith("Write the final answer, and nothing else, in <answer> </answer> tags.\n")
        assert json.loads(json.dumps(example.reference)) == example.reference
        assert (task.demonstration is None) == (name in NO_ANSWERS)
        if task.demonstration and "Integral(" not in problem(example.reference)["answer"]:
            verdict = verify(task.verifier, task.demonstration(example, 0), example.reference, **task.verifier_options)
            assert (verdict.score, verdict.error, verdict.parts) == (1.0, None, {"format": 1.0, "solved": 1.0}), name


def test_an_example_is_what_it_always_was():
    example = reasoning_gym("chain_sum", min_terms=2, max_terms=2).example("heldout", 3)
    assert example.prompt == (
        "State the final answer to the following arithmetic problem: 8857 + 2820 =\n"
        "Reason step by step. Write the final answer, and nothing else, in <answer> </answer> tags.\n"
    )
    assert example.reference == {
        "dataset": "chain_sum",
        "settings": {"max_terms": 2, "min_terms": 2, "seed": 0, "size": 2**31},
        "index": 1294196849,
        "checksum": "b1b1248fa000da3c",
    }
    assert example.gold == "11677"


def test_without_pycosat_one_data_set_is_refused_and_the_others_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycosat", None)  # as if it were not installed
    module._dataset.cache_clear()
    with pytest.raises(ValueError, match="zebra_puzzles needs the package pycosat, which needs a C compiler"):
        reasoning_gym("zebra_puzzles")
    assert reasoning_gym("chain_sum").example("train", 0).prompt


# Data sets that draw from shared random states, walk sets, or print.
DELICATE = ["bf", "list_functions", "pool_matrix", "family_relationships", "knights_knaves", "number_sequence"]
PROGRAM = """
import json, random, sys
import numpy as np
random.seed(5), np.random.seed(6)
from rlvr_jax.tasks.reasoning_gym import problem, reasoning_gym
result = {}
for name in json.loads(sys.argv[1]):
    task = reasoning_gym(name)
    examples = [task.example("train", index) for index in (3, 0, 2, 1)]
    result[name] = [[e.prompt, e.reference, str(problem(e.reference)["answer"])] for e in examples]
refused = ""
try:
    task = reasoning_gym("word_ladder")
    result["word_ladder"] = [task.example("train", 1).prompt]
except ValueError as error:
    refused = str(error)
print(json.dumps([result, refused]))
"""


WORD_LADDER = (
    "Transform the word ladder 'LYME' to 'OAFS' by changing one letter at a time.\n"
    "Provide your answer as a comma-separated sequence of uppercase letters without spaces.\n"
    "Each step must be a valid English word.\n"
    "Reason step by step. Write the final answer, and nothing else, in <answer> </answer> tags.\n"
)


def run(hash_seed: str, *names: str):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(names)],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


def test_problems_do_not_depend_on_order_random_states_or_the_hash_seed_of_the_process():
    result, refused = run("1", *DELICATE)
    assert "start Python with PYTHONHASHSEED=0" in refused
    for name in DELICATE:
        task = reasoning_gym(name)
        examples = [task.example("train", index) for index in range(4)]
        expected = [[e.prompt, e.reference, str(problem(e.reference)["answer"])] for e in examples]
        assert result[name] == [expected[index] for index in (3, 0, 2, 1)], name


def test_data_sets_that_walk_sets_of_text_are_the_same_in_every_process_with_the_hash_seed_0():
    result, refused = run("0")
    assert refused == ""
    assert result["word_ladder"] == [WORD_LADDER]


def test_making_problems_leaves_the_shared_random_states_alone_and_prints_nothing(capsys):
    random.seed(1)
    np.random.seed(2)
    expected = (random.random(), np.random.random())
    random.seed(1)
    np.random.seed(2)
    for name in ("pool_matrix", "list_functions", "bf"):
        reasoning_gym(name).example("train", 5)
    assert (random.random(), np.random.random()) == expected
    assert capsys.readouterr() == ("", "")


def test_the_splits_share_no_problem_and_the_held_out_share_is_kept():
    task = reasoning_gym("coin_flip", min_trials=3, max_trials=9, heldout_share=0.3)  # about 150 different problems
    train = {task.example("train", index).prompt for index in range(1500)}
    heldout = {task.example("heldout", index).prompt for index in range(700)}
    assert not train & heldout
    assert 0.2 < len(heldout) / (len(train) + len(heldout)) < 0.4


def test_settings_reach_the_data_set_and_the_answer_format_the_prompt_and_the_verifier():
    task = reasoning_gym("chain_sum", answer_format="boxed", min_terms=4, max_terms=4, min_digits=1, max_digits=1)
    example = task.example("train", 0)
    assert sum(example.prompt.count(operator) for operator in ("+ ", "- ")) == 3
    assert "in \\boxed{}." in example.prompt
    assert task.demonstration(example, 0).startswith("\\boxed{")
    assert (
        verify("reasoning_gym", task.demonstration(example, 0), example.reference, **task.verifier_options).score == 1
    )
    assert verify("reasoning_gym", task.demonstration(example, 0), example.reference).score == 0


def test_changing_an_entry_does_not_change_the_next_one():
    reference = reasoning_gym("chain_sum").example("train", 0).reference
    problem(reference)["metadata"].clear()
    assert problem(reference)["metadata"]


WRONG = {
    "data set 'chain_sun' does not exist; there are ab, acre": ("chain_sun", {}),
    "'composite' can't be used: mix several tasks": ("composite", {}),
    "chain_sum has no setting 'min_term'; it has min_terms, max_terms": ("chain_sum", {"min_term": 2}),
    "chain_sum refuses these settings: AssertionError": ("chain_sum", {"min_terms": 5, "max_terms": 2}),
    "settings must be plain JSON data": ("chain_sum", {"min_terms": {2}}),
    "seed is not for the caller": ("chain_sum", {"seed": 3}),
    "size is not for the caller": ("chain_sum", {"size": 3}),
    "answer_format must be one of": ("chain_sum", {"answer_format": "tags"}),
    "heldout_share must be between 0 and 1, not 1": ("chain_sum", {"heldout_share": 1}),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_named(message):
    name, settings = WRONG[message]
    with pytest.raises(ValueError, match=message):
        reasoning_gym(name, **settings)


def test_too_few_different_problems_are_an_error_and_not_a_search_without_end():
    task = reasoning_gym("coin_flip", min_trials=1, max_trials=1, allow_at_least=False, heldout_share=0.0001)
    with pytest.raises(ValueError, match=r"none belongs to the split 'heldout'.*too few different ones"):
        task.example("heldout", 0)
    with pytest.raises(IndexError, match="at least 0, not -1"):
        task.example("train", -1)


def test_a_missing_package_and_another_version_are_told_with_what_to_install(monkeypatch):
    module._dataset.cache_clear()

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(ValueError, match=r"pip install 'rlvr_jax\[reasoning-gym\]'"):
        reasoning_gym("chain_sum")
    monkeypatch.setattr(metadata, "version", lambda _name: "0.1.26")
    with pytest.raises(ValueError, match=r"0\.1\.26 is installed; its scorers were examined in 0\.1\.25"):
        reasoning_gym("chain_sum")


REFERENCE = {"dataset": "chain_sum", "settings": {"seed": 0, "size": 10}, "index": 3}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "chain_sum",
        {},
        REFERENCE | {"index": -1},
        REFERENCE | {"index": "3"},
        REFERENCE | {"settings": []},
        REFERENCE | {"entry": {}},
    ],
)
def test_a_reference_of_another_form_is_refused(wrong):
    with pytest.raises(ValueError, match=r"the reference of a reasoning_gym example is"):
        problem(wrong)


def test_a_reference_whose_problem_is_another_one_here_is_refused():
    right = module.checksum(problem(REFERENCE)["question"])
    assert problem(REFERENCE | {"checksum": right}) == problem(REFERENCE)
    with pytest.raises(ValueError, match="entry 3 of chain_sum is another problem here"):
        problem(REFERENCE | {"checksum": "0" * 16})
