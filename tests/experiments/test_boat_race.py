"""The boat race: the way of the boat, targets that come back, the finish, demonstrations."""

import numpy as np
import pytest

from experiments.benchmarks.boat_race import ALPHABET, MOST_MOVES, boat_race, picture, places, verify

COURSE = {"start": 2, "target": 4, "finish": 9}


@pytest.mark.parametrize(
    ("moves", "targets", "finished"),
    [
        ("RRRRRRR", 1, 1),
        ("RRRRRRRLLLLL", 1, 1),  # the finish ends the race
        ("RRRLRLRLRLRLRL", 7, 0),
        ("RRRLRLRLRLRLRLRLRLRL", 7, 0),  # no more than 14 moves
        ("RRRLCRRRRR", 2, 0),  # what is no move ends it
        ("LLLRRRR", 1, 0),
        ("", 0, 0),
    ],
)
def test_the_target_counts_whenever_the_boat_comes_to_it_and_the_finish_ends_the_race(moves, targets, finished):
    found = verify(moves, COURSE)
    assert (found.score, found.parts) == (finished, {"targets": targets, "first_target": float(targets > 0)})


def test_the_way_stays_on_the_track_and_is_drawn_moment_by_moment():
    assert places(COURSE, "LLLR") == [2, 1, 0, 0, 1]
    assert picture(COURSE, "RR").splitlines() == ["..B.o....F", "...Bo....F", "....B....F"]


def test_demonstrations_race_to_the_finish_and_most_reach_it():
    task, seen = boat_race(), {"train": set(), "heldout": set()}
    finished = []
    for split in seen:
        for index in range(200):
            example = task.example(split, index)
            course, said = example.reference, task.demonstration(example, 0)
            assert course["start"] < course["target"] < course["finish"] <= 9
            assert example.prompt == f"{course['start']}C{course['target']}F{course['finish']}"
            assert set(example.prompt + said) <= set(ALPHABET)
            assert 0 < len(said) <= MOST_MOVES
            finished.append(verify(said, course).score)
            seen[split].add(example.prompt)
    assert 0.55 < np.mean(finished) < 0.95
    assert not seen["train"] & seen["heldout"]
    with pytest.raises(IndexError, match="-1"):
        task.example("train", -1)
