"""Export: what comes out is what went in, whole or not at all."""

import json
import tracemalloc
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from rlvr_jax import policy
from rlvr_jax.config import from_dict
from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf import export
from rlvr_jax.hf.export import save_pretrained
from rlvr_jax.hf.peft import save_adapters
from rlvr_jax.hf.pretrained import load_pretrained
from rlvr_jax.hf.source import companion_files
from rlvr_jax.parallel import MeshConfig, make_mesh
from rlvr_jax.policy import LoraConfig
from rlvr_jax.training.export import is_pretrained
from tests.golden import make_golden
from tests.hf.checkpoints import golden_weights, stored_bytes, write_checkpoint
from tests.policy.reference import TINY, random_params

SHAPED = replace(TINY, head_dim=4)  # transformers wants heads that divide the width


def golden_checkpoint(folder, name="olmo3", dtype="float32"):
    golden = make_golden.read(name)
    config = {**golden["config"], "dtype": dtype, "something_else": [1, "ü"]}
    return write_checkpoint(folder, config, golden_weights(golden, dtype), files=2)


FAMILIES = ("llama3", "qwen2", "qwen3", "olmo2_tied", "olmo3", "smollm3", "gemma3", "mistral", "phi3")


@pytest.mark.parametrize(("name", "dtype"), [*((name, "bfloat16") for name in FAMILIES), ("olmo3", "float32")])
def test_the_export_of_an_import_is_identical_in_every_tensor_and_in_the_config(tmp_path, name, dtype):
    source = golden_checkpoint(tmp_path / "source", name, dtype)
    config, params = load_pretrained(source)
    save_pretrained(tmp_path / "out", config, params, source)
    assert stored_bytes(tmp_path / "out") == stored_bytes(source)
    assert (tmp_path / "out" / "config.json").read_bytes() == (source / "config.json").read_bytes()


def test_the_export_from_a_mesh_is_the_same(tmp_path):
    source = golden_checkpoint(tmp_path / "source")
    config, params = load_pretrained(source, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    save_pretrained(tmp_path / "out", config, params, source)
    assert stored_bytes(tmp_path / "out") == stored_bytes(source)


def test_large_exports_are_in_several_files_with_an_index(tmp_path):
    params = random_params(SHAPED)
    save_pretrained(tmp_path / "one", SHAPED, params)
    save_pretrained(tmp_path / "some", SHAPED, params, file_bytes=4000)
    assert not (tmp_path / "one" / "model.safetensors.index.json").exists()
    index = json.loads((tmp_path / "some" / "model.safetensors.index.json").read_text())
    names = sorted(file.name for file in (tmp_path / "some").glob("*.safetensors"))
    assert names == [f"model-{i + 1:05}-of-{len(names):05}.safetensors" for i in range(len(names))]
    assert len(names) > 2
    total = 0
    for name in names:
        tensors = safetensors.numpy.load_file(tmp_path / "some" / name)
        assert {key for key, file in index["weight_map"].items() if file == name} == set(tensors)
        size = sum(x.nbytes for x in tensors.values())
        assert size <= 4000
        total += size
    assert index["metadata"]["total_size"] == total
    assert stored_bytes(tmp_path / "some") == stored_bytes(tmp_path / "one")
    jax.tree.map(np.testing.assert_array_equal, load_pretrained(tmp_path / "some")[1], params)


def test_transformers_reads_the_config_of_a_policy_made_here(tmp_path):
    from transformers import AutoConfig

    config = replace(SHAPED, qk_norm="head", tie_embeddings=False, rope_theta=5e5, max_length=77)
    save_pretrained(tmp_path / "x", config, random_params(config), extra={"eos_token_id": 3})
    read = AutoConfig.from_pretrained(tmp_path / "x")
    assert type(read).__name__ == "Qwen3Config"
    assert (read.vocab_size, read.hidden_size, read.intermediate_size, read.num_hidden_layers) == (19, 16, 20, 2)
    assert (read.num_attention_heads, read.num_key_value_heads, read.head_dim) == (4, 2, 4)
    assert (read.rope_parameters["rope_theta"], read.rms_norm_eps, read.max_position_embeddings) == (5e5, 1e-6, 77)
    assert (read.tie_word_embeddings, read.eos_token_id, read.bos_token_id, read.dtype) == (False, 3, None, "float32")
    assert read.architectures == ["Qwen3ForCausalLM"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_type_of_the_weights_is_written_and_said_in_the_config(tmp_path, dtype):
    source = golden_checkpoint(tmp_path / "source")
    config, params = load_pretrained(source)
    save_pretrained(tmp_path / "out", config, params, source, dtype=dtype)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "out"))
    assert after == {**before, "dtype": dtype}
    (source / "config.json").write_text(json.dumps({**before, "torch_dtype": "float32"}))
    save_pretrained(tmp_path / "both", config, params, source, dtype=dtype, extra={"eos_token_id": 5})
    written = json.loads((tmp_path / "both" / "config.json").read_text())
    assert written == {**before, "dtype": dtype, "torch_dtype": dtype, "eos_token_id": 5}
    exact, rounded = stored_bytes(source), stored_bytes(tmp_path / "out")
    assert exact.keys() == rounded.keys()
    for name, (kind, shape, data) in rounded.items():
        assert (kind, shape) == ({"bfloat16": "BF16", "float16": "F16"}[dtype], exact[name][1])
        assert data == np.frombuffer(exact[name][2], np.float32).astype(jnp.dtype(dtype)).tobytes()


def test_files_of_the_tokenizer_go_along(tmp_path):
    source = golden_checkpoint(tmp_path / "source")
    (source / "tokenizer.json").write_bytes(b"\x00\xff tokenizer")
    (source / "generation_config.json").write_text("{}")
    config, params = load_pretrained(source)
    save_pretrained(tmp_path / "out", config, params, source, files=companion_files(source))
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == b"\x00\xff tokenizer"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_an_interrupted_export_is_no_checkpoint_and_the_next_one_is_whole(tmp_path, monkeypatch):
    params, out = random_params(SHAPED), tmp_path / "deep" / "out"
    write = export.write_file

    def write_first_only(file, *args):
        if "00001" not in file.name:
            raise KeyboardInterrupt
        write(file, *args)

    with monkeypatch.context() as patch:
        patch.setattr(export, "write_file", write_first_only)
        with pytest.raises(KeyboardInterrupt):
            save_pretrained(out, SHAPED, params, file_bytes=4000)
    assert not out.exists()
    save_pretrained(out, SHAPED, params)
    jax.tree.map(np.testing.assert_array_equal, load_pretrained(out)[1], params)
    assert list(out.parent.iterdir()) == [out]


def zeros(init, config):
    """Parameters of the shapes that `init` makes."""
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(lambda: init(config, jax.random.key(0))))


def test_what_cant_be_exported_is_refused_before_anything_is_written(tmp_path):
    params = random_params(SHAPED)
    with pytest.raises(CheckpointError, match=r"can.t be written as such: qk_norm: .none., there .full"):
        save_pretrained(tmp_path / "out", replace(SHAPED, norm_placement="post"), params)
    source = golden_checkpoint(tmp_path / "source")
    with pytest.raises(CheckpointError, match=r"is not of the shape of .*source.*num_layers: 2, there 5"):
        save_pretrained(tmp_path / "out", SHAPED, params, source)
    adapted = replace(SHAPED, lora=LoraConfig(rank=2))
    with pytest.raises(CheckpointError, match="have adapters; merge them before the export"):
        save_pretrained(tmp_path / "out", adapted, zeros(policy.init_with_adapters, adapted))
    with pytest.raises(CheckpointError, match="source is there already; choose another folder"):
        save_pretrained(source, SHAPED, params)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_adapters_of_modules_that_a_family_fuses_are_refused(tmp_path):
    phi = replace(SHAPED, rotary_dim=2, lora=LoraConfig(rank=2))
    for targets, fused in (((*"qkv", "out"), True), (("gate",), True), (("out", "down"), False)):
        config = replace(phi, lora=replace(phi.lora, targets=targets))
        params = zeros(policy.init_with_adapters, config)
        if fused:
            with pytest.raises(CheckpointError, match="model_type 'phi3' has one module for q, k and v"):
                save_adapters(tmp_path / "out", config, params, "base")
        else:
            save_adapters(tmp_path / "out", config, params, "base")
    modules = json.loads((tmp_path / "out" / "adapter_config.json").read_text())["target_modules"]
    assert modules == ["down_proj", "o_proj"]


def test_adapters_of_a_multimodal_checkpoints_text_model_come_with_their_base(tmp_path):
    text = make_golden.read("gemma3")["config"]
    for name, raw, alone in (("whole", {"model_type": "gemma3", "text_config": text}, False), ("text", text, True)):
        folder = write_checkpoint(tmp_path / name, raw, {"x": np.zeros(1)})
        config = from_dict({"pretrained": str(folder), "policy": {"lora": {"rank": 2}}})
        assert is_pretrained(config) == alone


def test_host_buffers_hold_a_few_tensors_at_a_time(tmp_path):
    config = replace(TINY, num_layers=4, width=256, head_dim=64, mlp_width=1024, vocab_size=300)
    params = jax.device_put(zeros(policy.init, config))
    save_pretrained(tmp_path / "compiles", config, params)
    tracemalloc.start()
    save_pretrained(tmp_path / "x", config, params)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    largest = 4 * config.width * config.mlp_width
    assert peak < 4 * largest < sum(x.nbytes for x in jax.tree.leaves(params)) / 3
