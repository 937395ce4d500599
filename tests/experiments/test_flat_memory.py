"""A long run needs no more memory than a short one: resident memory, that of the workers, and live arrays."""

import json

import pytest

from tests.experiments.runs import command, finish, start

EVERY = 10  # steps between two looks
MIB = 1 << 20


@pytest.mark.parametrize("steps", [200, pytest.param(2000, marks=pytest.mark.full)])
def test_memory_is_flat_over_many_steps(steps, tmp_path):
    line = command(
        "train",
        tmp_path / "run",
        reward="(('length',1.0),('score',1.0),('tests/experiments/memory_of_steps.py:term',1.0))",
        training__num_steps=steps,
        evaluation__every=50,
        evaluation__problems=4,
        evaluation__pass_problems=0,
        training__save_every=50,
    )
    groups = EVERY * 4  # of a step, and those that are tried before the run
    process = start(line, RUN_MEMORY=str(tmp_path / "memory"), RUN_GROUPS=str(groups))
    status, _, stderr = finish(process)
    assert status == 0, stderr
    rows = [json.loads(row) for row in (tmp_path / "memory").read_text().splitlines()]
    assert len(rows) >= steps // EVERY - 1
    rows = rows[len(rows) // 2 :]  # everything is compiled, and was once evaluated and saved
    early, late = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    most, least = (
        {name: (of(row[name] for row in early), of(row[name] for row in late)) for name in rows[0]} for of in (max, min)
    )
    for name in ("arrays", "array_bytes"):  # the least, since some may be in a checkpoint that is being written
        assert least[name][1] <= least[name][0], least
    assert most["workers"][1] - most["workers"][0] < 4 * MIB, most
    assert most["resident"][1] - most["resident"][0] < 8 * MIB + steps * 4096, most
