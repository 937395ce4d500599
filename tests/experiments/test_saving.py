"""The benchmark of checkpoints, as small as it can be."""

import pytest

from experiments.benchmarks import saving

pytestmark = pytest.mark.usefixtures("no_curves", "one_device")


def test_each_way_to_write_has_a_row(capsys):
    saving.main(["--saves=2", "--layers=1", "--width=16", "--length=8"])
    size, _, *rows = capsys.readouterr().out.splitlines()
    assert size.endswith("MiB a checkpoint")
    assert [row.rsplit(maxsplit=2)[0] for row in rows] == list(saving.WAYS)
    assert all(float(number) > 0 for row in rows for number in row.split()[-2:])
