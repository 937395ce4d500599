"""JSON lines survive killed writers, full disks and numbers that JSON doesn't have."""

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.reporting import jsonl

VALUES = st.one_of(st.integers(-(2**53), 2**53), st.floats(), st.booleans(), st.none())


NAMES = st.text(min_size=1).filter(lambda name: name not in jsonl.TEXT_FIELDS)


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=4), max_size=4))
def test_what_is_appended_is_read_back(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.touch()
        for row in rows:
            jsonl.append(path, [row])
        for line in path.read_text().splitlines():
            json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        read = jsonl.read(path)
    assert len(read) == len(rows)
    for wrote, got in zip(rows, read, strict=True):
        assert got.keys() == wrote.keys()
        for key, value in wrote.items():
            if isinstance(value, float) and math.isnan(value):
                assert math.isnan(got[key])
            else:
                assert got[key] == value


def test_scalars_of_numpy_keep_their_bits(tmp_path):
    value = np.float32(0.1)
    jsonl.append(tmp_path / "a", [{"x": value, "n": np.int64(3)}])
    assert jsonl.read(tmp_path / "a") == [{"x": float(value), "n": 3}]


def test_text_of_a_model_is_not_taken_for_a_number(tmp_path):
    row = {"step": 1, "completion": "NaN", "answer": "Infinity", "prompt": "lone \ud800 surrogate\u2028"}
    jsonl.append(tmp_path / "a", [row])
    assert jsonl.read(tmp_path / "a") == [row]


def test_a_torn_last_line_is_ignored_and_then_replaced(tmp_path):
    path = tmp_path / "a"
    jsonl.append(path, [{"step": 1}])
    with path.open("ab") as file:
        file.write(b'{"step": 2, "x')
    assert jsonl.read(path) == [{"step": 1}]
    jsonl.append(path, [{"step": 2}])
    assert jsonl.read(path) == [{"step": 1}, {"step": 2}]


def test_rubbish_inside_a_file_is_refused_by_name_and_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nrubbish\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
        jsonl.read(path)


@pytest.mark.parametrize("step", [-1, 0, 2, 9])
def test_truncation_keeps_the_rows_up_to_a_step(tmp_path, step):
    path = tmp_path / "a"
    rows = [{"step": n // 2, "x": n} for n in range(8)]
    jsonl.append(path, rows)
    jsonl.truncate_after(path, step)
    assert jsonl.read(path) == [row for row in rows if row["step"] <= step]
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_truncation_of_a_file_that_is_absent_makes_none(tmp_path):
    jsonl.truncate_after(tmp_path / "a", 3)
    assert not (tmp_path / "a").exists()


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot write metrics\.jsonl: No space left on device\. Free space"):
        jsonl.append(path, [{"step": 1}])
