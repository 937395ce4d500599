"""Import of checkpoints: values, placement, memory, and everything that can be wrong with one."""

import json
import re
import sys
import tracemalloc
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax import parallel, policy
from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.export import save_pretrained
from rlvr_jax.hf.families import pretrained_dict
from rlvr_jax.hf.layout import entries
from rlvr_jax.hf.pretrained import load_params, load_pretrained, loading_speed, pretrained_config
from rlvr_jax.hf.safetensors import write_file
from rlvr_jax.parallel import MeshConfig, make_mesh
from tests.experiments.runs import run
from tests.golden import make_golden
from tests.hf.checkpoints import golden_weights, stored_bytes, write_checkpoint
from tests.policy.reference import TINY

GOLDEN = make_golden.read("olmo3")  # five layers, untied, an odd vocabulary, norms over all heads
WEIGHTS = golden_weights(GOLDEN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("olmo3") / "checkpoint", GOLDEN["config"], WEIGHTS, files=3)


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_every_tensor_lands_transposed_in_its_layer(folder):
    config, params = load_pretrained(folder)
    attention, mlp = params["layers"]["attention"], params["layers"]["mlp"]
    heads, kv, dim = config.num_heads, config.num_kv_heads, config.head_dim
    np.testing.assert_array_equal(params["embed"], WEIGHTS["model.embed_tokens.weight"])
    np.testing.assert_array_equal(params["head"], WEIGHTS["lm_head.weight"])
    np.testing.assert_array_equal(params["norm"], WEIGHTS["model.norm.weight"])
    for i in range(config.num_layers):
        theirs = lambda name, i=i: WEIGHTS[f"model.layers.{i}.{name}.weight"]  # noqa: E731
        assert_same(attention["q"][i], theirs("self_attn.q_proj").T.reshape(config.width, heads, dim))
        assert_same(attention["k"][i], theirs("self_attn.k_proj").T.reshape(config.width, kv, dim))
        assert_same(attention["v"][i], theirs("self_attn.v_proj").T.reshape(config.width, kv, dim))
        assert_same(attention["out"][i], theirs("self_attn.o_proj").T.reshape(heads, dim, config.width))
        assert_same(attention["q_norm"][i], theirs("self_attn.q_norm").reshape(heads, dim))
        assert_same(attention["k_norm"][i], theirs("self_attn.k_norm").reshape(kv, dim))
        for name in ("gate", "up", "down"):
            assert_same(mlp[name][i], theirs(f"mlp.{name}_proj").T)
        assert_same(params["layers"]["attention_norm"][i], theirs("post_attention_layernorm"))
        assert_same(params["layers"]["mlp_norm"][i], theirs("post_feedforward_layernorm"))


@pytest.mark.parametrize("axes", [{"data": 2, "fsdp": 2, "tensor": 2}, {"data": 1, "fsdp": 8}])
def test_every_parameter_lies_on_its_shards(folder, axes):
    mesh = make_mesh(MeshConfig(**axes))
    config, params = load_pretrained(folder, mesh)
    shapes = jax.eval_shape(lambda: policy.init(config, jax.random.key(0)))
    shardings = parallel.param_shardings(mesh, policy.logical_axes(config), shapes)
    jax.tree.map(
        lambda x, sharding: None if x.sharding == sharding else pytest.fail(str(x.sharding)), params, shardings
    )
    assert params["layers"]["mlp"]["up"].addressable_shards[0].data.size * mesh.shape["fsdp"] * mesh.shape[
        "tensor"
    ] == (params["layers"]["mlp"]["up"].size)
    assert_same(params, load_pretrained(folder)[1])


@pytest.mark.parametrize(
    ("stored", "wanted", "expected"),
    [
        ("bfloat16", None, "bfloat16"),
        ("bfloat16", "float32", "float32"),
        ("float32", "bfloat16", "bfloat16"),
        ("float16", None, "float32"),
    ],
)
def test_parameters_have_the_files_type_or_the_one_asked_for(tmp_path, stored, wanted, expected):
    golden = make_golden.read("qwen2")
    weights = golden_weights(golden, stored)
    config, params = load_pretrained(write_checkpoint(tmp_path / "x", golden["config"], weights), dtype=wanted)
    assert config.dtype == config.param_dtype == expected
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(expected)}
    up = np.stack([weights[f"model.layers.{i}.mlp.up_proj.weight"].T for i in range(config.num_layers)])
    np.testing.assert_array_equal(params["layers"]["mlp"]["up"], up.astype(expected))
    bias = np.stack([weights[f"model.layers.{i}.self_attn.k_proj.bias"] for i in range(config.num_layers)])
    np.testing.assert_array_equal(
        params["layers"]["attention"]["k_bias"].reshape(bias.shape), bias.astype(jnp.dtype(expected))
    )


def test_a_checkpoint_of_two_types_is_held_in_float32(tmp_path):
    golden = make_golden.read("llama3")
    weights = golden_weights(golden, "bfloat16")
    weights["model.norm.weight"] = weights["model.norm.weight"].astype(np.float32)
    config, params = load_pretrained(write_checkpoint(tmp_path / "x", golden["config"], weights))
    assert config.param_dtype == "float32"
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_all_wrong_tensors_are_in_one_error(tmp_path):
    weights = {name: x for name, x in WEIGHTS.items() if not re.search(r"[0134]\.mlp\.up_proj", name)}
    del weights["lm_head.weight"]
    weights |= {"score.weight": np.zeros((2, 32), np.float32), "model.layers.5.mlp.up_proj.weight": np.zeros(3)}
    weights["model.layers.2.self_attn.q_norm.weight"] = np.ones(4, np.float32)
    weights["model.norm.weight"] = np.ones(32, np.int8)
    folder = write_checkpoint(tmp_path / "wrong", GOLDEN["config"], weights)
    with pytest.raises(CheckpointError) as error:
        load_pretrained(folder)
    assert str(error.value).splitlines() == [
        f"the tensors in {folder} are not those of its config.json:",
        "  missing: model.layers.{0-1,3-4}.mlp.up_proj.weight",
        "  missing: lm_head.weight",
        "  unknown: model.layers.5.mlp.up_proj.weight",
        "  unknown: score.weight",
        "  model.norm.weight has type I8; F64, F32, F16, BF16 are read",
        "  model.layers.2.self_attn.q_norm.weight is [4], should be [32]",
    ]


def test_what_older_exporters_also_wrote_is_passed_over(tmp_path):
    golden = make_golden.read("llama3")
    weights = golden_weights(golden)
    extra = {
        "lm_head.weight": weights["model.embed_tokens.weight"],  # of a model with tied embeddings, the same
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(4, np.float32),
    }
    plain = load_pretrained(write_checkpoint(tmp_path / "plain", golden["config"], weights))
    more = load_pretrained(write_checkpoint(tmp_path / "more", golden["config"], weights | extra))
    assert plain[0] == more[0]
    assert_same(plain[1], more[1])


@pytest.mark.parametrize(("prefix", "other"), [("language_model.model.", ""), ("model.language_model.", "model.")])
def test_of_a_multimodal_checkpoint_the_text_model_is_read_and_written(tmp_path, capfd, prefix, other):
    golden = make_golden.read("gemma3")
    weights = golden_weights(golden, "bfloat16")
    text = {**golden["config"], "dtype": "bfloat16"}
    whole = {"model_type": "gemma3", "text_config": text, "vision_config": {}, "eos_token_id": [1, 106]}
    theirs = {name.replace("model.", prefix, 1): x for name, x in weights.items()}
    theirs |= {
        f"{other}vision_tower.vision_model.embeddings.patch_embedding.weight": np.ones((3, 2), np.float32),
        f"{other}multi_modal_projector.mm_soft_emb_norm.weight": np.ones(3, np.float32),
    }
    source = write_checkpoint(tmp_path / "whole", whole, theirs, files=2)
    config, params = load_pretrained(source)
    assert str(source) in capfd.readouterr().err
    alone = write_checkpoint(tmp_path / "alone", text, weights)
    expected = load_pretrained(alone)
    assert config == expected[0]
    assert_same(params, expected[1])
    assert not capfd.readouterr().err
    save_pretrained(tmp_path / "out", config, params, source)
    assert stored_bytes(tmp_path / "out") == stored_bytes(alone)
    raw = json.loads((tmp_path / "out" / "config.json").read_text())
    assert raw == {**text, "architectures": ["Gemma3ForCausalLM"], "eos_token_id": [1, 106]}
    theirs["extra.weight"] = np.ones(3, np.float32)
    with pytest.raises(CheckpointError, match=r"unknown: extra\.weight"):
        load_pretrained(write_checkpoint(tmp_path / "more", whole, theirs))


@pytest.mark.parametrize("place", [0, -1])
def test_an_output_head_that_tied_embeddings_would_ignore_is_refused(tmp_path, place):
    golden = make_golden.read("qwen3")
    weights = golden_weights(golden)
    head = weights["model.embed_tokens.weight"].copy()
    head[place, place] += 1
    folder = write_checkpoint(
        tmp_path / "x", {**golden["config"], "tie_word_embeddings": True}, weights | {"lm_head.weight": head}
    )
    with pytest.raises(CheckpointError, match=r"lm_head\.weight that is not the embedding table.*tie_word_embeddings"):
        load_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"tie_word_embeddings": False}))
    np.testing.assert_array_equal(load_pretrained(folder)[1]["head"], head)


def test_tensors_may_lie_in_any_order_in_the_file(tmp_path, folder):
    by_kind = sorted(WEIGHTS, key=lambda name: name[::-1])  # all layers' tensors of one kind in a row
    (tmp_path / "config.json").write_text(json.dumps(GOLDEN["config"]))
    shapes = {name: ("F32", WEIGHTS[name].shape) for name in by_kind}
    write_file(tmp_path / "model.safetensors", shapes, (WEIGHTS[name] for name in by_kind))
    assert_same(load_pretrained(tmp_path)[1], load_pretrained(folder)[1])


def test_a_truncated_file_is_named_before_anything_is_loaded(tmp_path):
    folder = write_checkpoint(tmp_path / "x", GOLDEN["config"], WEIGHTS, files=3)
    file = folder / "model-00002-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors is not a whole safetensors file"):
        load_pretrained(folder)


def test_an_unsupported_model_is_refused_though_no_weights_are_there(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**GOLDEN["config"], "hidden_act": "relu"}))
    with pytest.raises(CheckpointError, match="hidden_act 'relu' is not supported"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"config\.json is not a JSON object"):
        pretrained_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON"):
        pretrained_config(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        pretrained_config(tmp_path)


def random_checkpoint(folder, config, seed=0):
    """A checkpoint of this shape, of which no more than a tensor was ever in memory."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(pretrained_dict(config)))
    found, rng = entries(config), np.random.default_rng(seed)
    shapes = {entry.name: ("F32", entry.shape) for entry in found}
    write_file(folder / "model.safetensors", shapes, (rng.random(e.shape, np.float32) for e in found))
    return max(4 * int(np.prod(entry.shape)) for entry in found), sum(4 * int(np.prod(entry.shape)) for entry in found)


@pytest.mark.parametrize("fsdp", [1, 8])
def test_host_buffers_hold_a_few_tensors_at_a_time(tmp_path, fsdp):
    config = replace(TINY, num_layers=6, width=256, head_dim=64, mlp_width=1024, vocab_size=300)
    largest, total = random_checkpoint(tmp_path / "x", config)
    shardings = None
    if fsdp > 1:
        shapes = jax.eval_shape(lambda: policy.init(config, jax.random.key(0)))
        mesh = make_mesh(MeshConfig(data=1, fsdp=fsdp))
        shardings = parallel.param_shardings(mesh, policy.logical_axes(config), shapes)
    load_params(tmp_path / "x", config, shardings)  # compiles
    tracemalloc.start()
    params = load_params(tmp_path / "x", config, shardings)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(x.nbytes for x in jax.tree.leaves(params)) == total
    assert largest < peak < 6 * largest < total / 3


def test_a_process_takes_little_more_memory_than_the_parameters(tmp_path):
    config = replace(TINY, num_layers=10, width=512, head_dim=64, mlp_width=2048, vocab_size=2000)
    largest, total = random_checkpoint(tmp_path / "large", config)
    random_checkpoint(tmp_path / "small", replace(config, num_layers=1))
    command = [sys.executable, "-m", "tests.hf.loaded", str(tmp_path / "small"), str(tmp_path / "large")]
    status, stdout, stderr = run(command)
    assert status == 0, stderr
    extra = int(stdout)
    assert largest == 4 << 20
    assert extra < 12 * largest < total / 2.5, f"{extra / largest:.1f} times the largest tensor"


def test_loading_speed_measures_the_files_that_are_loaded(folder):
    config = pretrained_config(folder)
    speed = loading_speed(folder, config, cold=True)
    assert speed.size == sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert min(speed.read_seconds, speed.load_seconds) > 0
