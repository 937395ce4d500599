"""The safetensors format against its own library, and broken files."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.safetensors import (
    INDEX,
    SINGLE,
    checkpoint_files,
    read_header,
    read_headers,
    read_rows,
    write_file,
)


def random_tensors():
    rng = np.random.default_rng(0)
    return {
        "b": rng.normal(size=(5, 3)).astype(np.float32),
        "a": rng.normal(size=(7,)).astype(np.float16),
        "empty": np.zeros((0, 4), np.float32),
        "c": rng.normal(size=(3, 2, 2)),
    }


def test_the_library_reads_what_is_written_here(tmp_path):
    tensors = random_tensors()
    shapes = {name: ({"a": "F16", "c": "F64"}.get(name, "F32"), x.shape) for name, x in tensors.items()}
    write_file(tmp_path / "x.safetensors", shapes, iter(tensors.values()))
    read = safetensors.numpy.load_file(tmp_path / "x.safetensors")
    assert list(tensors) == ["b", "a", "empty", "c"]
    for name, expected in tensors.items():
        assert read[name].dtype == expected.dtype
        np.testing.assert_array_equal(read[name], expected)
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_rows_of_what_the_library_wrote_are_read(tmp_path):
    tensors = random_tensors()
    safetensors.numpy.save_file(tensors, tmp_path / "x.safetensors", {"anything": "goes"})
    stored = read_header(tmp_path / "x.safetensors")
    assert set(stored) == set(tensors)
    for name, expected in tensors.items():
        np.testing.assert_array_equal(read_rows(stored[name], 0, len(expected)), expected)
    np.testing.assert_array_equal(read_rows(stored["b"], 1, 4), tensors["b"][1:4])


def test_bfloat16_keeps_its_bits(tmp_path):
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(jnp.bfloat16)
    write_file(tmp_path / "x.safetensors", {"x": ("BF16", x.shape)}, [x])
    stored = read_header(tmp_path / "x.safetensors")["x"]
    assert stored.dtype == "BF16"
    rows = read_rows(stored, 2, 4)
    assert rows.dtype == x.dtype
    np.testing.assert_array_equal(rows.view(np.uint16), x[2:].view(np.uint16))


def test_a_tensor_of_another_type_than_announced_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"x is float32\[2\], not F16\[2\]"):
        write_file(tmp_path / "x.safetensors", {"x": ("F16", (2,))}, [np.zeros(2, np.float32)])


def header_of(entries, size=0) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


X = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "its header should have 0 bytes, and the file has 0"),
        (b"\x01\x00", "the file has 2"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of git-lfs"),
        (b"\x04" + bytes(7) + b"[1,2", "its header can't be read"),
        (b"\x02" + bytes(7) + b"[]", "its header can't be read"),
        (header_of({"x": {"dtype": "F32"}}), "its header can't be read (KeyError: 'shape')"),
        (header_of({"x": {**X, "dtype": ["F32"]}}, 9), "bytes, and has "),
        (header_of({"x": X}, 7), "bytes, and has "),
        (header_of({"x": X}, 9), "bytes, and has "),
        (header_of({"x": {**X, "shape": [3]}}, 8), "x (F32[3]) can't take bytes 0 to 8 after 0"),
        (header_of({"x": {**X, "data_offsets": [4, 12]}}, 12), "x (F32[2]) can't take bytes 4 to 12 after 0"),
        (header_of({"x": X, "y": X}, 8), "y (F32[2]) can't take bytes 0 to 8 after 8"),
    ],
)
def test_a_broken_file_is_named(tmp_path, data, message):
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError) as error:
        read_headers(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'model.safetensors'} is not a whole safetensors file: ")
    assert message in str(error.value)


def test_files_are_those_of_the_index(tmp_path):
    with pytest.raises(CheckpointError, match=f"has no weights: neither {SINGLE} nor {INDEX}"):
        checkpoint_files(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}))
    with pytest.raises(CheckpointError, match=f"lacks a.safetensors, b.safetensors, which {INDEX} names"):
        checkpoint_files(tmp_path)
    for name in "ab":
        safetensors.numpy.save_file({"x": np.zeros(2)}, tmp_path / f"{name}.safetensors")
    assert checkpoint_files(tmp_path) == [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    with pytest.raises(CheckpointError, match="have a tensor x"):
        read_headers(tmp_path)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(CheckpointError, match=f"{INDEX} can't be read"):
        checkpoint_files(tmp_path)
