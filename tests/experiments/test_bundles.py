"""The static profile of a kernel, by the TPU compiler."""

import sys

from tests.experiments.runs import run


def test_the_command_prints_the_bundles_of_both_kinds_of_blocks():
    line = [sys.executable, "-m", "experiments.benchmarks.bundles", "--chips", "v5e", "--kernels", "ours"]
    line += ["--block-q", "128", "--block-k", "128"]  # which compile faster
    status, stdout, stderr = run(line)
    assert status == 0, stderr
    header, *rows = stdout.splitlines()
    assert header.split()[:4] == ["chip", "kernel", "bundles", "per"]
    assert [row.split()[:3] for row in rows] == [["v5e", "ours", "flash_forward"]] * 2
    without_mask, with_mask = (int(row.split()[4]) for row in rows)
    assert 0 < without_mask < with_mask
