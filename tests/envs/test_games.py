"""Games of many turns: of reasoning-gym, and answers in several attempts."""

import json
from contextlib import nullcontext

import pytest

from rlvr_jax.envs import Call, Done, Say, ToolResult, make_env
from rlvr_jax.envs.propose import judged, sudoku
from rlvr_jax.tasks import Example, make_task, reasoning_gym
from rlvr_jax.tasks.reasoning_gym import problem
from rlvr_jax.verifiers import verify

SETTINGS = {
    "sokoban": {"max_w": 6, "max_h": 6, "max_boxes": 4, "max_depth": 20},
    "tower_of_hanoi": {"max_disks": 3},
    "jugs": {"num_jugs": 3, "difficulty": 3},
}


def moves_of(name, answer):
    return {"sokoban": list, "tower_of_hanoi": str.splitlines, "jugs": json.loads}[name](answer)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_package_s_own_solution_played_move_by_move_is_judged_right_by_its_scorer(name):
    env, task = make_env("reasoning_gym_game"), reasoning_gym(name, **SETTINGS[name])
    for index in range(3):
        example = task.example("train", index)
        moves = moves_of(name, problem(example.reference)["answer"])
        state, prompt = env.start(example)
        assert "<move>" in prompt
        assert "<answer>" not in prompt
        for number, move in enumerate(moves, start=1):
            state, action = env.step(state, f"<think><move>x</move></think>Now <move>{move}</move>")
            assert env.parts_of(state) == {"moves": number, "illegal_moves": 0}
            if number < len(moves):
                assert isinstance(action, Say)
        assert isinstance(action, Done)
        assert verify("reasoning_gym", action.answer, example.reference).parts["solved"] == 1
        state, _ = env.start(example)
        state, action = env.step(state, f"<move>{moves[0]}</move> or <move>{chr(10).join(moves)}</move>")
        assert verify("reasoning_gym", action.answer, example.reference).parts["solved"] == 1


SOKOBAN = "+ + + + +  \n+ X @ * +  \n+ - $ - +  \n+ - - + +  \n+ + + + +  \n\n"


@pytest.mark.parametrize(
    ("moves", "told", "made"),
    [
        ("L", "DONE", 1),
        ("DL", "+ + + + +\n+ X @ - +\n+ @ % - +\n+ - - + +\n+ + + + +\n", 2),
        ("DLD", "+ + + + +\n+ X @ - +\n+ @ X - +\n+ - * + +\n+ + + + +\n", 3),
        ("U", "'U' is not allowed: there is a wall\n" + "\n".join(SOKOBAN.split("  \n")[:5]) + "\n", 0),
        ("DLL", "'L' is not allowed: there is no room behind the box\n", 2),
        ("X", "'X' is not allowed: a move is U, D, L or R\n", 0),
    ],
)
def test_sokoban(monkeypatch, moves, told, made):
    entry = {"question": "Q", "metadata": {"gamestr": SOKOBAN}}
    monkeypatch.setattr("rlvr_jax.envs.reasoning_gym.problem", lambda _: entry)
    env = make_env("reasoning_gym_game")
    state, _ = env.start(Example("t/train/0", "", {"dataset": "sokoban"}, "t"))
    state, action = env.step(state, f"<move>{moves}</move>")
    if told == "DONE":
        assert action == Done(answer="<answer>L</answer>")
    else:
        assert action.observation.startswith(told)
    assert env.parts_of(state) == {"moves": made, "illegal_moves": "not allowed" in told}


JUGS = {"puzzle": {"jug_capacities": [3, 5], "target": 4}}
HANOI = {"num_disks": 2, "num_pegs": 3, "start_peg": 1, "target_peg": 3}


@pytest.mark.parametrize(
    ("dataset", "metadata", "turn", "told"),
    [
        ("jugs", JUGS, "<move>fill B, pour B->A</move>", "A: 3 of 3 litres, B: 2 of 5 litres\n"),
        ("jugs", JUGS, "<move>pour A->A</move>", "'pour A->A' is not allowed: the jugs are A to B, and pouring takes"),
        ("jugs", JUGS, "<move>fill C</move>", "'fill C' is not allowed: the jugs are A to B"),
        ("jugs", JUGS, "<move>drink A</move>", "'drink A' is not allowed: a move is 'fill A', 'empty A' or"),
        ("jugs", JUGS, "fill A", "there is no move in <move> </move> tags ('fill A', "),
        ("tower_of_hanoi", HANOI, "<move>Move disk 1 from Peg 1 to Peg 2</move>", "Peg 1: 2\nPeg 2: 1\nPeg 3: empty\n"),
        (
            "tower_of_hanoi",
            HANOI,
            "<move>Move disk 2 from Peg 1 to Peg 2</move>",
            "'Move disk 2 from Peg 1 to Peg 2' is",
        ),
        (
            "tower_of_hanoi",
            HANOI,
            "<move>Move disk 1 from Peg 1 to Peg 4</move>",
            "'Move disk 1 from Peg 1 to Peg 4' is",
        ),
        ("tower_of_hanoi", HANOI, f"<move>Move disk {'9' * 5000} from Peg 1 to Peg 4</move>", "'Move disk 9999"),
        ("tower_of_hanoi", HANOI, f"<move>Move disk 1 from Peg {'1' * 5000} to Peg 4</move>", "'Move disk 1"),
        ("tower_of_hanoi", HANOI, "<move>" * 100_000, "there is no move in"),
        ("tower_of_hanoi", HANOI, "<move>1 to 2</move>", "'1 to 2' is not allowed: a move is 'Move disk X from"),
    ],
)
def test_positions_and_moves_that_are_not_allowed_are_told(monkeypatch, dataset, metadata, turn, told):
    entry = {"question": "Q", "metadata": metadata}
    monkeypatch.setattr("rlvr_jax.envs.reasoning_gym.problem", lambda _: entry)
    env = make_env("reasoning_gym_game")
    state, _ = env.start(Example("t/train/0", "", {"dataset": dataset}, "t"))
    state, action = env.step(state, turn)
    assert action.observation.startswith(told)


def test_a_smaller_disk_carries_no_larger_one(monkeypatch):
    monkeypatch.setattr("rlvr_jax.envs.reasoning_gym.problem", lambda _: {"question": "Q", "metadata": HANOI})
    env = make_env("reasoning_gym_game", {"answer_format": "hash"})
    state, _ = env.start(Example("t/train/0", "", {"dataset": "tower_of_hanoi"}, "t"))
    moves = [f"Move disk {disk} from Peg {source} to Peg {goal}" for disk, source, goal in [(1, 1, 2), (2, 1, 2)]]
    state, action = env.step(state, f"<move>{moves[0]}\n{moves[1]}</move>")
    assert "the top disk of Peg 2 is smaller" in action.observation
    last = "<move>Move disk 2 from Peg 1 to Peg 3\nmove disk 1 from peg 2 to peg 3</move>"
    state, action = env.step(state, last)
    assert action.answer.startswith(f"#### {moves[0]}\nMove disk 2")


def test_other_problems_and_formats_are_refused():
    env = make_env("reasoning_gym_game")
    with pytest.raises(ValueError, match="sokoban, tower_of_hanoi, jugs, and t/train/0"):
        env.start(Example("t/train/0", "1+1", {"dataset": "chain_sum"}, "t"))
    with pytest.raises(ValueError, match=r"answer_format.*'tags'"):
        make_env("reasoning_gym_game", {"answer_format": "tags"})


MODSUM = Example("t/train/0", "12=", "3", "t")


def proposed(options, turns):
    """The actions of the environment after these turns, each judged here."""
    env, found = make_env("propose", {"verifier": "modsum", **options}), []
    state, prompt = env.start(MODSUM)
    assert prompt == "12="
    for turn in turns:
        state, action = env.step(state, turn)
        assert isinstance(action, Call)
        state, action = env.receive(state, (ToolResult(judged(**action.calls[0].kwargs)),))
        found.append(action)
    return found, env.parts_of(state)


def test_a_policy_proposes_until_it_is_right_or_has_no_attempt_left():
    found, parts = proposed({}, ["#1", "#3"])
    assert [type(action) for action in found] == [Say, Done]
    assert (found[0].observation, found[1].answer) == ("This is not right. \nTry again.\n", "#3")
    assert parts == {"attempts": 2, "first_score": 0}
    found, parts = proposed({"attempts": 2, "wrong": "{}|", "tells": "score"}, ["#1", "#2"])
    assert (found[0].observation, found[1].answer, parts["attempts"]) == ("It scores 0.|", "#2", 2)
    assert proposed({}, ["#3"])[1] == {"attempts": 1, "first_score": 1}


def test_a_proposal_that_can_not_be_judged_leaves_the_episode_out():
    env = make_env("propose", {"verifier": "modsum"})
    state, _ = env.start(MODSUM)
    state, _ = env.step(state, "#1")
    for result in (ToolResult(error="timed out after 9 s"), ToolResult({"score": 0, "error": "no", "told": ""})):
        _, action = env.receive(state, (result,))
        assert (action.reason, action.error) == ("tool_error", f"attempt 1: {result.error or 'no'}")


def test_values_of_verifier_options_are_tried_on_a_problem_before_the_run():
    example = make_task("tic_tac_toe").example("train", 0)
    for draw in (0.25, 1.25):
        env = make_env("plans", {"environment": "propose", "environment_options": {
            "verifier": "tic_tac_toe", "verifier_options": {"draw": draw}}})  # fmt: skip
        with pytest.raises(ValueError, match=r"'draw': 1\.25.*tic_tac_toe/train/0") if draw > 1 else nullcontext():
            env.check(example)


def test_the_mistakes_of_a_sudoku_are_told():
    example = reasoning_gym("mini_sudoku").example("train", 0)
    right = problem(example.reference)["answer"]
    rows = [line.split() for line in right.splitlines()]
    puzzle = problem(example.reference)["metadata"]["puzzle"]
    row, column = next((r, c) for r in range(4) for c in range(4) if puzzle[r][c])
    given = str(puzzle[row][column])
    rows[row][column] = str(puzzle[row][column] % 4 + 1)
    wrong = "<answer>" + "\n".join(map(" ".join, rows)) + "</answer>"
    told = sudoku(wrong, example.reference)
    assert told.startswith(f"Row {row + 1}, column {column + 1} of the puzzle is {given}. Row {row + 1} lacks {given}.")
    assert f"Column {column + 1} lacks {given}." in told
    assert sudoku(f"<answer>{right}</answer>", example.reference) == ""
    for hostile in ("9" * 5000, "\u0661 \u00b2", "<answer>" * 9):
        assert sudoku(f"<answer>{hostile}</answer>", example.reference).startswith("The answer must have 4 rows")
    assert sudoku(right, example.reference).startswith("The answer must have 4 rows of 4 numbers")
    options = {"verifier": "reasoning_gym", "completion": wrong, "reference": example.reference, "options": {}}
    assert judged(**options, tells="nothing", explain="rlvr_jax.envs.propose:sudoku")["told"] == told


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"verifier": "modsums"}, "no verifier 'modsums'"),
        ({"verifier": "modsum", "verifier_options": {"nope": 1}}, "verifier_options of 'modsum': .*'nope'"),
        ({"verifier": "gsm8k", "verifier_options": {"percent": 5}}, "percent must be text, not 5"),
        ({"verifier": "modsum", "attempts": 0}, "attempts.*0"),
        ({"verifier": "modsum", "tells": "all"}, "tells.*'all'"),
        ({"verifier": "modsum", "explain": "rlvr_jax.envs.propose:nothing"}, "no 'nothing'"),
    ],
)
def test_options_of_proposals_that_can_not_be_used_are_named(options, why):
    with pytest.raises(ValueError, match=why):
        make_env("propose", options)
