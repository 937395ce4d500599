"""The benchmark of slow tools, as small as it can be."""

import pytest

from experiments.benchmarks import latency

pytestmark = pytest.mark.usefixtures("no_curves", "one_device")


def test_every_schedule_has_a_row(monkeypatch):
    monkeypatch.setattr(latency, "TURNS", 2)
    table = latency.latency(1, 0.02, prompts=2, group=2, lag=1, patience=20, layers=1, width=16, turn=8)
    head, _, *rows = (line.strip("| ").split(" | ") for line in table.splitlines())
    assert [row[0] for row in rows] == list(latency.SCHEDULES)
    assert head[2] == "device waits"
    assert all(0 <= int(row[2].rstrip("%")) <= 100 for row in rows)
    assert all(float(row[3]) > 0 for row in rows)
    assert rows[0][6] == "0"
