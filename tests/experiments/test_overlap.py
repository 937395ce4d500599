"""The benchmarks of what a run does beside training, slow verifiers and checkpoints, as small as they can be."""

import pytest

from experiments.benchmarks import overlap, saving

pytestmark = pytest.mark.usefixtures("no_curves", "one_device")


def test_every_schedule_has_a_row(capsys):
    overlap.main(["--seconds=0.002", "--workers=2", "--steps=3", "--layers=1", "--width=16", "--length=8"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.endswith("%")]
    assert [row.rsplit(maxsplit=2)[0] for row in rows] == list(overlap.SCHEDULES)
    assert all(0 <= int(row.rsplit(maxsplit=1)[1].rstrip("%")) <= 100 for row in rows)


def test_each_way_to_write_a_checkpoint_has_a_row(capsys):
    saving.main(["--saves=2", "--layers=1", "--width=16", "--length=8", "--prompts=8", "--samples=8"])
    size, _, *rows = capsys.readouterr().out.splitlines()
    assert size.endswith("MiB a checkpoint")
    assert [row.rsplit(maxsplit=2)[0] for row in rows] == list(saving.WAYS)
    assert all(float(number) >= 0 for row in rows for number in row.split()[-2:])
