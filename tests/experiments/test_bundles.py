"""The static profile of a kernel, by the TPU compiler."""

import subprocess
import sys

from tests.conftest import ROOT


def test_the_command_prints_the_bundles_of_both_kinds_of_blocks():
    line = [sys.executable, "-m", "experiments.benchmarks.bundles", "--chips", "v5e", "--kernels", "ours"]
    line += ["--block-q", "128", "--block-k", "128"]  # which compile faster
    run = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    header, *rows = run.stdout.splitlines()
    assert header.split()[:4] == ["chip", "kernel", "bundles", "per"]
    assert [row.split()[:3] for row in rows] == [["v5e", "ours", "flash_forward"]] * 2
    without_mask, with_mask = (int(row.split()[4]) for row in rows)
    assert 0 < without_mask < with_mask
