"""What a pretrained checkpoint and a tokenizer make of a run, before its first step."""

import dataclasses
import json

import pytest

from rlvr_jax.config import Config, PromptConfig, RolloutConfig, SftConfig
from rlvr_jax.errors import CheckpointError, ConfigError
from rlvr_jax.policy import PolicyConfig
from rlvr_jax.text.tokenizers import pretrained_tokenizer
from rlvr_jax.training.export import export
from rlvr_jax.training.setup import make_setup
from rlvr_jax.training.sft import sft
from tests.hf.checkpoints import write_model
from tests.text.pretrained import BOS, EOS, EOT, WRITES_ITS_OWN, tokenizer

pytestmark = pytest.mark.usefixtures("one_device")

SHAPE = PolicyConfig(vocab_size=300, width=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_width=16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint whose tokenizer has a chat template."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    made = tokenizer("bytes", template=WRITES_ITS_OWN)
    return write_model(folder, made, SHAPE, eos_token_id=[EOS, 9], temperature=0.5)


@pytest.fixture(scope="module")
def config(model):
    return Config(
        pretrained=str(model),
        prompt=PromptConfig("chat", template="Q: {prompt}"),
        rollout=RolloutConfig(8, 4, 64, 16),
        sft=SftConfig(num_steps=1, batch_size=8, updates_per_call=1, save_every=1),
    )


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A folder with another tokenizer, and nothing else but what ends its texts."""
    folder = tmp_path_factory.mktemp("tokenizers") / "other"
    tokenizer("bytes", begins="", template="{{ messages[0].content }}=").save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    return folder


def test_a_response_ends_at_what_the_checkpoint_lists_and_at_the_templates_end_of_a_turn(config):
    setup = make_setup(config)
    assert setup.stop_tokens == (EOS, EOT, 9)
    assert setup.end_token == EOT
    plain = make_setup(dataclasses.replace(config, prompt=PromptConfig("plain")))
    assert (plain.stop_tokens, plain.end_token) == ((EOS, 9), EOS)
    assert plain.tasks["modsum"].example("train", 0).prompt.startswith("<s>")


@pytest.mark.parametrize("kind", ["other", "bytes"])
def test_stop_tokens_template_and_export_are_those_of_a_tokenizer_of_another_checkpoint(
    config, other, model, kind, tmp_path
):
    config = dataclasses.replace(config, tokenizer=str(other) if kind == "other" else kind, mesh=config.mesh)
    setup = make_setup(config)
    assert setup.stop_tokens == ((EOS, 7) if kind == "other" else (1,))
    prompt = setup.tasks["modsum"].example("train", 0).prompt
    assert "<|" not in prompt
    sft(config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    before = json.loads((model / "config.json").read_text())
    ids = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": 0}
    if kind == "bytes":
        ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    assert written == before | ids
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation == ids | {"temperature": 0.5, "eos_token_id": list(setup.stop_tokens)}
    exported = pretrained_tokenizer(tmp_path / "out")
    assert exported.get_vocab() == setup.tokenizer.get_vocab()
    assert exported.chat_template == setup.tokenizer.chat_template


def test_a_warm_start_teaches_the_end_of_a_turn_and_the_export_says_that_it_ends_a_response(config, model, tmp_path):
    sft(config, tmp_path / "run")
    export(tmp_path / "run", tmp_path / "out")
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation == {"eos_token_id": [EOS, EOT, 9], "temperature": 0.5}
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (model / name).read_bytes()


def _remove(name):
    return lambda folder: (folder / name).unlink()


def _truncate(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-3])


def _tokens_gone(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove("config.json"), r"^config\.pretrained: .*has no config\.json"),
        (_tokens_gone, r"^config\.pretrained: .*has no tokenizer .*config\.tokenizer names another"),
        (_remove("model.safetensors"), "has no weights"),
        (_truncate, "is not a whole safetensors file"),
        (lambda folder: (folder / "generation_config.json").write_text("{"), r"generation_config\.json is not JSON"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_said_before_a_workdir_is_made(config, tmp_path, damage, message):
    folder = write_model(tmp_path / "model", tokenizer("bytes", template=WRITES_ITS_OWN), SHAPE)
    damage(folder)
    with pytest.raises((ConfigError, CheckpointError), match=message):
        sft(dataclasses.replace(config, pretrained=str(folder)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("source", ["/no/such/folder", "no-such/model"])
def test_a_wrong_folder_is_no_matter_of_tokenizers(config, source):
    with pytest.raises(ConfigError, match=rf"^config\.pretrained: there is no folder {source}") as error:
        make_setup(dataclasses.replace(config, pretrained=source))
    assert "tokenizer" not in str(error.value)
    with pytest.raises(ConfigError, match=rf"^config\.tokenizer: there is no folder {source}.*'characters'"):
        make_setup(dataclasses.replace(config, tokenizer=source))
