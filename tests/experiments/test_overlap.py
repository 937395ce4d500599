"""The benchmarks of what a run does beside training, slow verifiers, tools and checkpoints, as small as they can be."""

import pytest

from experiments.benchmarks import latency, overlap, saving

pytestmark = pytest.mark.usefixtures("no_curves", "one_device")


def test_every_schedule_of_verifiers_has_a_row(capsys):
    overlap.main(["--seconds=0.002", "--workers=1", "--steps=3", "--layers=1", "--width=16", "--length=8"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.endswith("%")]
    assert [row.rsplit(maxsplit=2)[0] for row in rows] == list(overlap.SCHEDULES)
    assert all(0 <= int(row.rsplit(maxsplit=1)[1].rstrip("%")) <= 100 for row in rows)


def test_each_way_to_write_a_checkpoint_has_a_row(capsys):
    saving.main(["--saves=2", "--layers=1", "--width=16", "--length=8", "--prompts=8", "--samples=8"])
    size, _, *rows = capsys.readouterr().out.splitlines()
    assert size.endswith("MiB a checkpoint")
    assert [row.rsplit(maxsplit=2)[0] for row in rows] == list(saving.WAYS)
    assert all(float(number) >= 0 for row in rows for number in row.split()[-2:])


def test_every_schedule_of_tools_has_a_row(monkeypatch):
    monkeypatch.setattr(latency, "TURNS", 2)
    table = latency.latency(1, 0.02, prompts=1, group=2, lag=1, patience=20, layers=1, width=16, turn=8)
    head, _, *rows = (line.strip("| ").split(" | ") for line in table.splitlines())
    assert [row[0] for row in rows] == list(latency.SCHEDULES)
    assert head[2] == "device waits"
    assert all(0 <= int(row[2].rstrip("%")) <= 100 for row in rows)
    assert all(float(row[3]) > 0 for row in rows)
    assert rows[0][6] == "0"
