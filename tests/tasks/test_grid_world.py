"""The grid world: problems, what is seen, demonstrations, the environment and its verifier."""

import itertools
import sys

import pytest

from rlvr_jax import tasks
from rlvr_jax.envs import Done, Say, make_env
from rlvr_jax.tasks import make_task
from rlvr_jax.tasks.grid_world import MOVES, distance, moved, seen
from rlvr_jax.verifiers import verify

ENV = make_env("grid_world")
WORLD = {"size": 3, "start": [2, 0], "goal": [0, 2], "walls": [[1, 0], [1, 1]]}


def example(world=WORLD):
    return tasks.Example("grid_world/train/0", seen(world, tuple(world["start"])), world, "grid_world")


def shortest(world):
    """The length of a shortest way, by trying all of them."""
    for length in range(1, 7):
        for way in itertools.product(MOVES, repeat=length):
            if verify("grid_world", "\n".join(way), world).score:
                return length
    return None


def test_neighbours_and_direction_of_the_goal_are_seen():
    assert [seen(WORLD, place) for place in ((2, 0), (2, 2), (1, 2), (0, 1))] == [
        *("ne#.##|", "n-.##.|", "n-G#.#|", "-e#G#.|"),
    ]


def test_a_move_leads_to_the_neighbour_unless_that_is_a_wall():
    assert [moved(WORLD, (2, 1), move) for move in "nesw"] == [(2, 1), (2, 2), (2, 1), (2, 0)]


def test_problems_have_a_way_of_the_lengths_asked_for(monkeypatch):
    task = make_task("grid_world", {"size": 4, "walls": 5, "farthest": 4})
    for split in ("train", "heldout"):
        for index in range(4):
            made = task.example(split, index)
            assert 2 <= distance(made.reference) <= 4
            assert shortest(made.reference) == distance(made.reference)
            assert made.prompt == seen(made.reference, tuple(made.reference["start"]))
    first = make_task("grid_world", {}).example("train", 0)
    assert (first.prompt, first.reference["start"], first.reference["goal"]) == ("ne.##.|", [3, 1], [2, 2])
    closed = {"size": 3, "start": [0, 0], "goal": [2, 2], "walls": [[0, 1], [1, 0]]}
    assert distance(closed) is None
    for options in ({"size": 2}, {"walls": 13}, {"farthest": 1}):
        with pytest.raises(ValueError, match="must be"):
            make_task("grid_world", options)
    monkeypatch.setattr(sys.modules["rlvr_jax.tasks.grid_world"], "_MOST_DRAWS", 0)
    with pytest.raises(ValueError, match="none has a way"):
        task.example("train", 0)


def test_the_environment_walks_and_ends_at_the_goal():
    (state, prompt), actions = ENV.start(example()), []
    assert prompt == "ne#.##|"
    for turn in ("n", "e", "up", "", "e", "n", "n"):
        state, action = ENV.step(state, turn)
        actions.append(action)
    around = ["ne#.##|", "ne#.#.|", "!|", "!|", "n-.##.|", "n-G#.#|"]
    assert actions == [*map(Say, around), Done()]
    with pytest.raises(ValueError, match="modsum/train/0 has no grid"):
        ENV.start(tasks.modsum().example("train", 0))


@pytest.mark.parametrize(
    ("completion", "score", "moves"),
    [
        ("e\ne\nn\nn", 1, 4),
        ("e\ne\nn\nn\ns", 1, 4),
        ("n\ne\nup\n\ne\nn\nn", 1, 7),
        ("e\ne\nn", 0, 3),
        ("een", 0, 1),
        ("", 0, 1),
    ],
)
def test_the_moves_are_walked_again(completion, score, moves):
    verdict = verify("grid_world", completion, WORLD)
    assert (verdict.score, verdict.parts) == (score, {"moves": moves})
    assert "grid" in verify("grid_world", completion, None).error
    assert "wall" in verify("grid_world", completion, WORLD | {"goal": [1, 1]}).error


def test_demonstrations_are_walks_with_what_the_environment_says():
    task, right = make_task("grid_world", {}), 0
    for index in range(300):
        made = task.example("train", index)
        messages = task.demonstration(made, index)
        state, _ = ENV.start(made)
        for number, message in enumerate(messages):
            if number % 2 == 0:
                state, action = ENV.step(state, message["content"])
            else:
                assert action == Say(message["content"])
            assert set(message["content"]) <= set(task.alphabet)
        assert messages[-1]["role"] == "assistant"
        right += action == Done()
    assert 0.02 < right / 300 < 0.2
