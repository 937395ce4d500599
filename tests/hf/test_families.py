"""From config.json to the policy's shape and back."""

import json
from dataclasses import fields, replace

import pytest

from configs import models
from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.families import (
    RUN_FIELDS,
    check_same_shape,
    policy_config,
    pretrained_dict,
    text_config,
    with_shape_of,
)
from rlvr_jax.hf.layout import entries
from rlvr_jax.policy import LoraConfig, PolicyConfig, RopeScaling
from tests.golden import make_golden

LLAMA32_1B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
QWEN3_1P7B = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "use_sliding_window": False,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
OLMO3_7B = {
    "model_type": "olmo3",
    "vocab_size": 100278,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 65536,
    "rms_norm_eps": 1e-06,
    "rope_theta": 500000,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "attention_factor": 1.2079441541679836,
        "beta_fast": 32,
        "beta_slow": 1,
    },
    "sliding_window": 4096,
    "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 8,
    "attention_bias": False,
    "tie_word_embeddings": False,
}
GEMMA3_1B = {
    "model_type": "gemma3_text",
    "vocab_size": 262144,
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "num_hidden_layers": 26,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 32768,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "eos_token_id": [1, 106],
    "torch_dtype": "bfloat16",
}
GEMMA3_27B = {  # of which only the text model is of interest; what its config leaves out has the class's defaults
    "model_type": "gemma3",
    "architectures": ["Gemma3ForConditionalGeneration"],
    "eos_token_id": [1, 106],
    "image_token_index": 262144,
    "text_config": {
        "model_type": "gemma3_text",
        "head_dim": 128,
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_attention_heads": 32,
        "num_hidden_layers": 62,
        "num_key_value_heads": 16,
        "query_pre_attn_scalar": 168,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "torch_dtype": "bfloat16",
    "vision_config": {"model_type": "siglip_vision_model"},
}
MISTRAL_7B = {
    "model_type": "mistral",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
}
PHI4_MINI = {
    "model_type": "phi3",
    "vocab_size": 200064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "partial_rotary_factor": 0.75,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"type": "longrope", "short_factor": [1] * 48, "long_factor": [1, *range(2, 49)]},
    "rope_theta": 10000.0,
    "sliding_window": 262144,
    "tie_word_embeddings": True,
    "attention_bias": False,
}
# Published numbers of parameters, each tensor counted once.
PUBLISHED = {
    "llama": (LLAMA32_1B, 1_235_814_400),
    "qwen3": (QWEN3_1P7B, 1_720_574_976),
    "gemma3": (GEMMA3_1B, 999_885_952),
    "mistral": (MISTRAL_7B, 7_241_732_096),
    "phi3": (PHI4_MINI, 3_836_021_760),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_give_the_published_number_of_parameters(name):
    raw, count = PUBLISHED[name]
    total = 0
    for entry in entries(policy_config(raw)):
        size = 1
        for length in entry.shape:
            size *= length
        total += size
    assert total == count


def test_llama_3_2_has_its_rope_scaling():
    config = policy_config(LLAMA32_1B)
    assert config.rope_scaling == RopeScaling("llama3", factor=32.0, original_length=8192)
    assert (config.rope_theta, config.norm_eps, config.qk_norm, config.qkv_bias) == (5e5, 1e-5, "none", False)


def test_olmo_3_scales_positions_of_its_full_layers_only():
    config = policy_config(OLMO3_7B)
    assert config.window_pattern == (4096, 4096, 4096, 0)
    assert config.rope_pattern == ("unscaled", "unscaled", "unscaled", "scaled")
    assert config.rope_scaling == RopeScaling(
        "yarn", factor=8.0, original_length=8192, attention_factor=1.2079441541679836
    )
    assert (config.norm_placement, config.qk_norm, config.head_dim) == ("post", "full", 128)


def test_gemma_3_has_two_bases_of_rotary_frequencies_and_scales_those_of_its_full_layers():
    config = policy_config(GEMMA3_1B)
    assert config.window_pattern == (512,) * 5 + (0,)
    assert config.rope_pattern == ("unscaled",) * 5 + ("scaled",)
    assert (config.rope_theta, config.rope_theta_unscaled, config.rope_scaling.type) == (1e6, 1e4, "none")
    assert (config.norm_placement, config.norm_offset, config.qk_norm, config.score_dim) == ("both", 1.0, "head", 0)
    assert (config.activation, config.scale_embeddings, config.tie_embeddings) == ("gelu_tanh", True, True)
    larger = policy_config(GEMMA3_27B)
    assert larger.rope_scaling == RopeScaling("linear", factor=8.0)
    assert (larger.vocab_size, larger.num_layers, larger.head_dim, larger.score_dim) == (262208, 62, 128, 168)
    assert larger.window_pattern == (1024,) * 5 + (0,)


def test_the_configs_shape_of_gemma_3_is_the_published_one():
    shape = replace(PolicyConfig(), **models.GEMMA3_1B)
    check_same_shape(shape, policy_config(GEMMA3_1B), "Gemma 3 1B")


def test_phi_4_mini_turns_three_quarters_of_its_heads_at_frequencies_with_divisors_of_their_own():
    config = policy_config(PHI4_MINI)
    assert (config.head_dim, config.rotary_dim, config.window_pattern) == (128, 96, (262144,))
    assert config.rope_scaling == RopeScaling(
        "longrope",
        factor=32.0,
        original_length=4096,
        short_factors=(1.0,) * 48,
        long_factors=(1.0, *map(float, range(2, 49))),
    )
    scaling = PHI4_MINI["rope_scaling"]
    for change, name in ((scaling | {"long_factor": [1.0]}, "long_factor"), ({"type": "longrope"}, "short_factor")):
        with pytest.raises(CheckpointError, match=name):
            policy_config({**PHI4_MINI, "rope_scaling": change})


def test_the_windows_of_mistral_are_those_of_all_layers():
    assert policy_config(MISTRAL_7B).window_pattern == (4096,)
    assert policy_config({**MISTRAL_7B, "sliding_window": None}).window_pattern == (0,)


def test_the_golden_configs_give_the_shapes_of_their_families():
    shape = lambda name: policy_config(make_golden.read(name)["config"])  # noqa: E731
    assert shape("qwen2").qkv_bias
    assert shape("qwen2").window_pattern == (0, 0, 5)
    assert shape("qwen3").qk_norm == "head"
    assert shape("qwen3").head_dim == 10
    assert shape("llama_linear").rope_scaling == RopeScaling("linear", factor=2.0)
    assert shape("smollm3").rope_pattern == ("scaled", "scaled", "scaled", "none")
    assert shape("smollm3_mha").rope_pattern == ("none", "scaled", "scaled")
    assert shape("olmo3_mqa").window_pattern == (4,)
    assert policy_config({**QWEN3_1P7B, "use_sliding_window": True, "sliding_window": 64}).window_pattern == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gemma2"}, "model_type 'gemma2' is not supported; one of llama, mistral, qwen2, qwen3, olmo2,"),
        ({"model_type": "gemma3"}, "of model_type 'gemma3' lacks text_config"),
        ({"model_type": None}, "model_type None is not supported"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config is not supported; an unquantised"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported; one of silu, gelu_pytorch_tanh is"),
        ({"attention_bias": True}, "attention_bias true with model_type 'llama' is not supported; false is"),
        ({"mlp_bias": True}, "mlp_bias true with model_type 'llama' is not supported; false is"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
            "rope_type 'dynamic' is not supported; one of default, linear, llama3, yarn, longrope is",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0, "mscale": 1.0}},
            "mscale of rope_type 'linear' is not supported",
        ),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor other than 1 is not supported"),
        ({"num_key_value_heads": 5}, "num_key_value_heads does not divide num_attention_heads"),
        ({"num_hidden_layers": 0}, "num_layers must be above 0, not 0"),
        ({"num_key_value_heads": 0}, "num_kv_heads must be above 0, not 0"),
        ({"vocab_size": "many"}, "is not a valid config: StrictDataclassFieldValidationError"),
    ],
)
def test_what_the_decoder_does_not_do_is_refused_by_name(change, message):
    with pytest.raises(CheckpointError) as error:
        policy_config({**LLAMA32_1B, **change}, "there/config.json")
    assert str(error.value).startswith("there/config.json")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_activation": "gelu"}, "hidden_activation 'gelu' is not supported"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0 with model_type 'gemma3_text'"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0 with model_type 'gemma3_text'"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention true with model_type 'gemma3_text'"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic' is not supported; one of"),
        ({"sliding_window": None}, "layer_types has sliding_attention, and sliding_window is None"),
        ({"query_pre_attn_scalar": -4}, "score_dim must be 0 or more, not -4"),
    ],
)
def test_what_gemma_3_may_say_and_the_decoder_does_not_do_is_refused_by_name(change, message):
    with pytest.raises(CheckpointError) as error:
        policy_config({**GEMMA3_1B, **change}, "there/config.json")
    assert str(error.value).startswith("there/config.json")
    assert message in str(error.value)


def test_layers_that_turn_positions_differently_than_the_decoder_are_refused():
    plain = {"rope_type": "default", "rope_theta": 1e6}
    raw = {key: value for key, value in OLMO3_7B.items() if key not in ("rope_theta", "rope_scaling")}
    linear = {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0}
    with pytest.raises(CheckpointError, match="rope_type 'linear' of sliding layers only is not supported"):
        policy_config({**raw, "rope_parameters": {"full_attention": plain, "sliding_attention": linear}})
    with pytest.raises(CheckpointError, match="layer_types entry 'chunked_attention' is not supported"):
        policy_config({**OLMO3_7B, "layer_types": ["chunked_attention"] * 32})


def test_the_text_model_of_a_multimodal_config_is_a_text_config():
    text = text_config(GEMMA3_27B)
    assert (text["model_type"], text["architectures"]) == ("gemma3_text", ["Gemma3ForCausalLM"])
    assert (text["eos_token_id"], text["torch_dtype"]) == ([1, 106], "bfloat16")
    assert policy_config(text) == policy_config(GEMMA3_27B)
    assert text_config(GEMMA3_1B) == GEMMA3_1B


BASE = PolicyConfig(vocab_size=19, num_layers=4, width=32, num_heads=4, num_kv_heads=2, head_dim=8, mlp_width=48)
OLMO = replace(BASE, norm_placement="post", qk_norm="full", tie_embeddings=False)
YARN = RopeScaling("yarn", factor=4.0, original_length=64)
LONGROPE = RopeScaling("longrope", 4.0, original_length=64, short_factors=(1.0,) * 3, long_factors=(2.0,) * 3)
GEMMA = replace(
    BASE, qk_norm="head", norm_placement="both", norm_offset=1.0, scale_embeddings=True, activation="gelu_tanh"
)
LOCAL = {"window_pattern": (7, 0), "rope_pattern": ("unscaled", "scaled"), "rope_theta_unscaled": 100.0}
SHAPES = {
    "llama": [
        BASE,
        replace(BASE, head_dim=6, rope_scaling=RopeScaling("llama3", factor=8.0, original_length=64)),
        replace(BASE, activation="gelu_tanh", score_dim=8),
    ],
    "mistral": [replace(BASE, window_pattern=(7,)), replace(BASE, window_pattern=(7,), tie_embeddings=False)],
    "qwen2": [replace(BASE, qkv_bias=True), replace(BASE, qkv_bias=True, window_pattern=(0, 0, 0, 7), head_dim=10)],
    "qwen3": [replace(BASE, qk_norm="head", head_dim=20), replace(BASE, qk_norm="head", rope_scaling=YARN)],
    "olmo2": [OLMO, replace(OLMO, rope_scaling=RopeScaling("linear", factor=2.0))],
    "olmo3": [
        replace(OLMO, window_pattern=(7, 0), rope_pattern=("unscaled", "scaled"), rope_scaling=YARN),
        replace(OLMO, window_pattern=(7, 7, 0), rope_scaling=YARN, rope_theta=1e6),
        replace(OLMO, window_pattern=(7, 0), rope_pattern=("unscaled",)),  # nothing is scaled
        replace(OLMO, **LOCAL),
    ],
    "smollm3": [replace(BASE, rope_pattern=("scaled", "none")), replace(BASE, window_pattern=(7, 0))],
    "phi3": [
        replace(BASE, rotary_dim=4, tie_embeddings=False),
        replace(BASE, rope_scaling=replace(LONGROPE, short_factors=(1.0,) * 4, long_factors=(2.0,) * 4)),
        replace(BASE, rotary_dim=6, max_length=77, window_pattern=(7,), rope_scaling=LONGROPE),
    ],
    "gemma3_text": [GEMMA, replace(GEMMA, **LOCAL, rope_scaling=YARN, score_dim=5, activation="silu")],
}


@pytest.mark.parametrize(
    ("model_type", "config"), [(model_type, config) for model_type, group in SHAPES.items() for config in group]
)
def test_a_policy_of_a_familys_shape_is_written_as_that_family(model_type, config):
    raw = json.loads(json.dumps(pretrained_dict(config)))
    assert raw["model_type"] == model_type
    check_same_shape(config, policy_config(raw), "its own config.json")


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (replace(BASE, qk_norm="head", qkv_bias=True), ["qkv_bias"]),
        (replace(BASE, norm_placement="post"), ["qk_norm"]),
        (replace(BASE, qk_norm="full"), ["qk_norm"]),
        (replace(BASE, window_pattern=(3, 7)), ["window_pattern"]),
        (replace(BASE, qkv_bias=True, rope_pattern=("none",)), ["rope_pattern"]),
        (
            replace(BASE, norm_offset=1.0, scale_embeddings=True, score_dim=3),
            ["norm_offset", "score_dim", "scale_embeddings"],
        ),
        (replace(GEMMA, norm_offset=0.5, qkv_bias=True), ["norm_offset", "qkv_bias"]),
        (replace(BASE, rope_pattern=("unscaled",), rope_theta_unscaled=7.0), ["rope_theta_unscaled", "rope_pattern"]),
    ],
)
def test_a_shape_of_no_family_is_refused_with_the_fields_that_differ(config, fields):
    with pytest.raises(CheckpointError, match="can't be written as such: ") as error:
        pretrained_dict(config)
    assert [part.split(":")[0] for part in str(error.value).split("as such: ")[1].split("; ")] == fields


def test_a_run_keeps_its_choices_on_the_shape_of_a_checkpoint():
    choices = {
        "max_length": 99,
        "dtype": "bfloat16",
        "cache_dtype": "int8",
        "remat": "full",
        "lora": LoraConfig(rank=4),
    }
    config = with_shape_of(replace(PolicyConfig(), width=1, **choices), policy_config(QWEN3_1P7B))
    assert (config.width, config.num_layers, config.qk_norm) == (2048, 28, "head")
    assert {name: getattr(config, name) for name in choices} == choices


def test_every_field_of_a_policy_is_a_choice_of_the_run_or_part_of_the_architecture():
    sizes = "vocab_size num_layers width num_heads num_kv_heads head_dim mlp_width rotary_dim score_dim"
    kinds = "norm_placement norm_eps norm_offset qk_norm qkv_bias activation scale_embeddings tie_embeddings"
    positions = "rope_theta rope_theta_unscaled rope_scaling rope_pattern window_pattern"
    names = [*RUN_FIELDS, *sizes.split(), *kinds.split(), *positions.split()]
    assert sorted(names) == sorted(field.name for field in fields(PolicyConfig))
