"""The stream of chunks, its windows and its environment; and operations on digits with plans."""

import numpy as np
import pytest

from rlvr_jax.envs import Done, NewWindow, make_env
from rlvr_jax.tasks import make_task
from rlvr_jax.tasks.operations import OPERATIONS
from rlvr_jax.verifiers import verify

STREAM = make_task("stream", {"chunks": 5})


def test_the_answer_is_the_newest_digit_of_the_place_that_matters():
    found = []
    for i in range(200):
        example = STREAM.example("train", i)
        goal, chunks = example.reference["goal"], example.reference["chunks"]
        column = [chunk["ABC".index(goal)] for chunk in chunks]
        assert any(x != "-" for x in column[:2])
        assert example.reference["answer"] == [x for x in column if x != "-"][-1]
        assert example.prompt == f"{goal}|-|{chunks[0]}|"
        assert verify("key_value", f"#{example.reference['answer']}", example.reference).score == 1
        found += [x != "-" for chunk in chunks for x in chunk]
    assert 0.28 < np.mean(found) < 0.38


def test_an_environment_carries_one_character_from_window_to_window():
    example = STREAM.example("train", 0)
    goal, chunks, answer = (example.reference[name] for name in ("goal", "chunks", "answer"))
    env = make_env("stream")
    state, prompt = env.start(example)
    assert prompt == example.prompt
    for number, said in enumerate(["7", "", "56", "5"], start=1):
        state, action = env.step(state, said)
        end = "?" if number == 4 else "|"
        assert action == NewWindow(f"{goal}|{said[:1] or '-'}|{chunks[number]}{end}")
    assert env.step(state, f"#{answer}")[1] == Done(answer=f"#{answer}")
    parts = env.parts_of(state)
    assert (parts["empty_summaries"], parts["long_summaries"]) == (1, 1)
    forgets = make_env("stream", {"summaries": False})
    state, _ = forgets.start(example)
    assert forgets.step(state, "7")[1] == NewWindow(f"{goal}|-|{chunks[1]}|")
    with pytest.raises(ValueError, match="is no stream"):
        env.start(make_task("stream", {"show": "windows"}).example("train", 0))


def test_a_summary_that_holds_what_matters_is_counted():
    example = STREAM.example("train", 3)
    env, column = make_env("stream"), [x["ABC".index(example.reference["goal"])] for x in example.reference["chunks"]]
    state, _ = env.start(example)
    for number in range(1, 5):
        known = [x for x in column[:number] if x != "-"]
        state, _ = env.step(state, known[-1] if known and number % 2 else "x")
    held = sum(any(x != "-" for x in column[:number]) for number in (1, 3))
    assert env.parts_of(state)["held"] == held / 4


def test_demonstrated_windows_show_the_format_and_not_what_to_keep():
    task = make_task("stream", {"show": "windows"})
    examples = [task.example("train", i) for i in range(400)]
    shown = [(example, task.demonstration(example, i)) for i, example in enumerate(examples)]
    last = [(example, said) for example, said in shown if example.prompt.endswith("?")]
    assert 0.5 < len(last) / len(shown) < 0.7
    assert np.mean([said == f"#{example.reference['answer']}" for example, said in last]) > 0.8
    kept = [example.reference["answer"] == said for example, said in shown if not example.prompt.endswith("?")]
    assert 0.4 < np.mean(kept) < 0.8
    assert task.num_examples("heldout") == 0


@pytest.mark.parametrize("options", [{"chunks": 1}, {"show": "all"}])
def test_streams_that_can_not_be_made_are_refused(options):
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        make_task("stream", options)


@pytest.mark.parametrize(("operation", "answer"), [("S", 1), ("M", 8), ("F", 6), ("L", 5)])
def test_an_operation_and_its_plan(operation, answer):
    task = make_task("operations", {"operation": operation})
    assert len(OPERATIONS) == 4
    planned = []
    for i in range(200):
        example, by_hand = task.example("train", i), {"S": lambda x: sum(x) % 10, "M": max, "F": lambda x: x[0],
                                                      "L": lambda x: x[-1]}  # fmt: skip
        digits = [int(x) for x in example.prompt[1:-1]]
        assert 2 <= len(digits) <= 6
        assert example.reference["answer"] == str(by_hand[operation](digits))
        said = task.demonstration(example, i)
        plan, _, right = said.rpartition("#")
        assert right == example.reference["answer"]
        if plan:
            assert plan == f"[{''.join(str(by_hand[operation](digits[:n])) for n in range(2, len(digits) + 1))}]"
        planned.append(bool(plan))
    assert abs(np.mean(planned) - (0.7 if operation == "S" else 0.5)) < 0.12
    digits = [6, 8, 0, 8, 4, 5]
    assert {"S": sum(digits) % 10, "M": max(digits), "F": 6, "L": 5}[operation] == answer


@pytest.mark.parametrize("options", [{"operation": "X"}, {"least": 7}, {"most": 51}])
def test_operations_that_can_not_be_made_are_refused(options):
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        make_task("operations", options)
