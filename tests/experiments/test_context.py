"""The two ways to share attention of a row, by the TPU compiler."""

import sys

import pytest

from tests.experiments.runs import run


def test_the_command_prints_what_each_way_sends():
    line = [sys.executable, "-m", "experiments.benchmarks.context", "--devices", "2", "--tokens", "512"]
    status, stdout, stderr = run([*line, "--heads", "4", "--kv", "2", "--block", "128"])
    assert status == 0, stderr
    heads, keys = ([x.strip() for x in row.strip("|").split("|")] for row in stdout.splitlines()[2:])
    assert (heads[:2], keys[:2]) == (["2", "heads"], ["2", "keys"])
    of_vector = 512 * 128 * 2 / 2**20 / 2  # MiB that a head of a row sends, from bfloat16
    assert float(heads[2]) == pytest.approx(2 * (4 + 2 * 2 + 4) * of_vector / 2, abs=0.1)
    assert float(keys[2]) == pytest.approx(2 * (2 + 2) * of_vector, abs=0.1)
    assert (heads[4], keys[4]) == ("1.00", "1.50")
