"""The benchmark of slow verifiers, as small as it can be."""

import pytest

from experiments.benchmarks import overlap

pytestmark = pytest.mark.usefixtures("no_curves", "one_device")


def test_every_schedule_has_a_row(capsys):
    overlap.main(["--seconds=0.01", "--workers=2", "--steps=3", "--layers=1", "--width=16", "--length=8"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.endswith("%")]
    assert [row.rsplit(maxsplit=2)[0] for row in rows] == list(overlap.SCHEDULES)
    assert all(0 <= int(row.rsplit(maxsplit=1)[1].rstrip("%")) <= 100 for row in rows)
