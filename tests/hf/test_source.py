"""Where checkpoints come from, what their small files say, and what is wrong with a folder, in one line each."""

import json
import shutil
import types

import pytest
from huggingface_hub.utils import HfHubHTTPError

from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.pretrained import check_weights, load_pretrained, pretrained_config
from rlvr_jax.hf.source import companion_files, find_checkpoint, listed_stop_tokens, read_config
from tests.golden import make_golden
from tests.hf.checkpoints import golden_weights, write_checkpoint

GOLDEN = make_golden.read("llama3")
WEIGHTS = golden_weights(GOLDEN)


@pytest.fixture
def folder(tmp_path):
    return write_checkpoint(tmp_path / "llama3", GOLDEN["config"], WEIGHTS, files=2)


def test_what_cant_be_had_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="there is no folder someone/absent"):
        load_pretrained("someone/absent")
    for path in ("/not/here", "./not-here", "a/b/c"):
        with pytest.raises(CheckpointError, match=f"^there is no folder {path}$"):
            load_pretrained(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file is a file; a folder of a Hugging Face checkpoint"):
        find_checkpoint(tmp_path / "file")


class Hub:
    """What a hub answers to the two questions that are asked of it, and the questions."""

    def __init__(self, monkeypatch, answer):
        self.asked, self.fetched, self.answer = [], [], answer
        monkeypatch.setattr("huggingface_hub.HfApi.repo_info", self.repo_info)
        monkeypatch.setattr("huggingface_hub.snapshot_download", self.snapshot_download)

    def repo_info(self, repository, revision, timeout):
        assert 0 < timeout < 10
        self.asked.append((repository, revision))
        if isinstance(self.answer, Exception):
            raise self.answer
        return types.SimpleNamespace(sha="abc")

    def snapshot_download(self, repository, revision, allow_patterns, local_files_only):
        self.fetched.append((repository, revision, local_files_only, set(allow_patterns)))
        return self.folder


def test_of_a_repository_only_what_is_needed_is_fetched(monkeypatch, folder):
    hub = Hub(monkeypatch, answer=None)
    hub.folder = str(folder)
    assert pretrained_config("some/model@v1") == pretrained_config(folder)
    assert find_checkpoint("some/model") == folder
    assert hub.asked == [("some/model", "v1"), ("some/model", None)]
    (*first, without), (*second, everything) = hub.fetched
    assert first == second == ["some/model", "abc", False]
    assert everything - without == {"model*.safetensors", "model.safetensors.index.json"}
    assert {"config.json", "generation_config.json", "tokenizer*"} <= without


def test_without_a_hub_the_copy_that_is_here_serves(monkeypatch, folder):
    hub = Hub(monkeypatch, answer=ConnectionError("no route to host"))
    hub.folder = str(folder)
    assert find_checkpoint("some/model@v2") == folder
    assert hub.fetched[0][:3] == ("some/model", "v2", True)


def test_a_repository_that_the_hub_does_not_know_is_not_looked_for_here(monkeypatch):
    response = types.SimpleNamespace(status_code=404, headers={}, request=None)
    hub = Hub(monkeypatch, answer=HfHubHTTPError("404: no repository some/modle", response=response))
    with pytest.raises(CheckpointError, match=r"there is no folder some/modle, .*: HfHubHTTPError: 404: no repository"):
        find_checkpoint("some/modle")
    assert hub.fetched == []


def test_companions_are_the_files_of_tokenizer_and_generation(tmp_path):
    names = ["chat_template.jinja", "generation_config.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"]
    for name in [*names, "config.json", "README.md", "model.safetensors"]:
        (tmp_path / name).write_text(name)
    assert [file.name for file in companion_files(tmp_path)] == names


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [7, 5]}, {"eos_token_id": 3}, (7, 5)),
        ({"eos_token_id": 7}, {}, (7,)),
        ({"temperature": 0.6}, {"eos_token_id": [3, 4]}, (3, 4)),
        (None, {"eos_token_id": 0}, (0,)),
        (None, {"eos_token_id": None}, ()),
        ({}, None, ()),
    ],
)
def test_stop_tokens_are_those_of_the_generation_config_or_else_of_the_config(tmp_path, generation, config, expected):
    for name, raw in (("generation_config.json", generation), ("config.json", config)):
        if raw is not None:
            (tmp_path / name).write_text(json.dumps(raw))
    assert listed_stop_tokens(tmp_path) == expected


@pytest.mark.parametrize("text", ["{", "[1]", '{"eos_token_id": "</s>"}', '{"eos_token_id": [1, -1]}'])
def test_a_damaged_generation_config_is_an_error(tmp_path, text):
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        listed_stop_tokens(tmp_path)


def _without_a_shard(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()


def _interrupted(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()
    (folder / ".cache" / "huggingface" / "download").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "download" / "abc.incomplete").write_bytes(b"12")


def _without_weights(folder):
    for file in folder.glob("model*"):
        file.unlink()


def _pointer(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 34\n"
    (folder / "model-00001-of-00002.safetensors").write_text(text)


def _twice(folder):
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / "model.safetensors")


def _adapters(folder):
    (folder / "adapter_config.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_a_shard, "lacks model-00002-of-00002.safetensors, which model.safetensors.index.json names; copy"),
        (_interrupted, "lacks model-00002-of-00002.safetensors.*its download was interrupted"),
        (_without_weights, "has no weights: neither model.safetensors nor model.safetensors.index.json"),
        (_pointer, "model-00001-of-00002.safetensors is not a whole safetensors file: it is a pointer of git-lfs"),
        (_twice, "has both model.safetensors and model.safetensors.index.json"),
        (_adapters, "holds adapters .adapter_config.json., which are not read; merge them"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named_before_anything_is_loaded(folder, damage, message):
    config = pretrained_config(folder)
    assert check_weights(folder, config).keys() == WEIGHTS.keys()
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        check_weights(folder, pretrained_config(folder))


def test_a_folder_that_holds_another_format_says_which(tmp_path):
    (tmp_path / "tiny-q4.gguf").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"has no config\.json.*give the path of its file tiny-q4\.gguf"):
        read_config(tmp_path)
