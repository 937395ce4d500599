"""GGUF files: the policy of the checkpoint of the same weights, the tokenizer of the same model, clear refusals."""

import json
from dataclasses import replace

import gguf
import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.families import pretrained_dict
from rlvr_jax.hf.pretrained import load_pretrained
from rlvr_jax.hf.source import find_checkpoint, listed_stop_tokens
from rlvr_jax.policy import PolicyConfig, RopeScaling
from rlvr_jax.text.prompts import renderer
from rlvr_jax.text.tokenizers import decode, encode, pretrained_tokenizer
from tests.hf.checkpoints import random_weights, write_checkpoint
from tests.policy.reference import frequencies

TEXTS = ("How many 1234 apples, 2²?", "  it's  DON'T\n\n x", "naïve 雪🌸 \t", "<|im_start|>user\nHi<|im_end|>", "")
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
SHAPE = PolicyConfig(
    vocab_size=320, width=32, num_heads=4, num_kv_heads=2, head_dim=8, mlp_width=48, norm_eps=1e-5, max_length=99
)
LLAMA3 = RopeScaling("llama3", factor=8.0, original_length=8192)
CASES = {
    "llama": SHAPE,
    "llama untied": replace(SHAPE, tie_embeddings=False, rope_theta=5e5, rope_scaling=LLAMA3, head_dim=16),
    "qwen2": replace(SHAPE, qkv_bias=True, rope_scaling=RopeScaling("linear", factor=2.0)),
    "qwen3": replace(SHAPE, qk_norm="head", rope_theta=1e6, head_dim=12),
    "gemma3": replace(
        SHAPE,
        num_layers=7,
        qk_norm="head",
        norm_placement="both",
        norm_offset=1.0,
        scale_embeddings=True,
        activation="gelu_tanh",
        rope_theta=1e6,
        rope_theta_unscaled=1e4,
        rope_scaling=RopeScaling("linear", factor=8.0),
        window_pattern=(5,) * 5 + (0,),
        rope_pattern=("unscaled",) * 5 + ("scaled",),
    ),
}


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of the rows of q and k: first of the first half, first of the second, second of the first..."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(rows.shape)


def theirs(name: str, kind: str) -> str:
    """The name of a tensor in GGUF, from llama.cpp's documentation."""
    both = (
        ("post_attention_layernorm", "post_attention_norm"), ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
    )  # fmt: skip
    for ours, short in (
        *(both if kind == "gemma3" else ()),
        ("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output"),
        ("model.layers.", "blk."), ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.o_proj", "attn_output"), ("self_attn.", "attn_"), ("mlp.", "ffn_"), ("_proj", ""),
    ):  # fmt: skip
        name = name.replace(ours, short)
    return name


def write_gguf(file, kind, shape, weights, tokens, changes=(), quantise=None, **keys):
    """A GGUF file by its own library; returns the weights as the file holds them."""
    writer, held = gguf.GGUFWriter(file, kind), {}
    writer.add_block_count(shape.num_layers)
    writer.add_context_length(shape.max_length)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.mlp_width)
    writer.add_head_count(shape.num_heads)
    writer.add_head_count_kv(shape.num_kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    if shape.rope_scaling.type == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(shape.rope_scaling.factor)
    if shape.rope_scaling.type == "llama3":
        plain = shape.rope_theta ** -(np.arange(0, shape.head_dim, 2) / shape.head_dim)
        divisors = plain / np.array(frequencies(shape)[0])
        writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))
    if max(shape.window_pattern):
        writer.add_sliding_window(max(shape.window_pattern))
    for name, value in tokens.items():
        getattr(writer, f"add_{name}")(value)
    for name, value in keys.items():
        writer.add_uint32(f"{kind}.{name.replace('__', '.')}", value)
    for name, value in {**weights, **dict(changes)}.items():
        if quantise and value.ndim == 2:
            packed = gguf.quantize(value, quantise)
            value = gguf.dequantize(packed, quantise).reshape(value.shape)
        held[name] = value
        if kind == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            value = interleaved(value, shape.num_heads if "q_proj" in name else shape.num_kv_heads)
        if kind == "gemma3" and name.endswith("norm.weight"):
            value = value + 1
        if quantise and value.ndim == 2:
            writer.add_tensor(theirs(name, kind), gguf.quantize(value, quantise), raw_dtype=quantise)
        else:
            writer.add_tensor(theirs(name, kind), value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def byte_level(cut) -> Tokenizer:
    """A tokenizer of 320 tokens that cuts a text into words by `cut`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cut)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, "How many apples and 12345 more, isn't it? " * 3], trainer)
    return tokenizer


def tokens_of(tokenizer: Tokenizer, kind: str, cut: str) -> dict:
    """What a GGUF file holds of a tokenizer."""
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    types = [gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL for token in tokens]
    found = {
        "tokenizer_model": kind,
        "tokenizer_pre": cut,
        "token_list": tokens,
        "token_types": types,
        "bos_token_id": 1,
        "eos_token_id": 4,
        "unk_token_id": 0,
        "chat_template": TEMPLATE,
    }
    if kind == "gpt2":
        return found | {"token_merges": [" ".join(pair) for pair in model["merges"]]}
    ranks = {"".join(pair): i for i, pair in enumerate(model["merges"])}
    return found | {"token_scores": [-float(ranks.get(token, 0)) for token in tokens]}


def gpt2() -> list:
    return [pre_tokenizers.ByteLevel(add_prefix_space=False)]


@pytest.mark.parametrize("case", CASES)
def test_a_file_and_the_checkpoint_of_the_same_weights_are_one_policy(tmp_path, case):
    kind, shape, weights = case.split()[0], CASES[case], random_weights(CASES[case])
    if kind == "gemma3":  # to which 1 is added in the file, so that smaller bits are lost
        weights |= {name: np.round(x * 1024) / 1024 for name, x in weights.items() if name.endswith("norm.weight")}
    file = tmp_path / "tiny.gguf"
    write_gguf(file, kind, shape, weights, tokens_of(byte_level(gpt2()), "gpt2", "gpt-2"))
    folder = write_checkpoint(tmp_path / "hf", pretrained_dict(shape), weights)
    found, expected = load_pretrained(file), load_pretrained(folder)
    assert found[0] == replace(expected[0], init_scale=found[0].init_scale)
    jax.tree.map(np.testing.assert_array_equal, found[1], expected[1])


def test_quantised_weights_keep_their_values_and_half_ones_their_type(tmp_path):
    shape = replace(SHAPE, width=32, mlp_width=64)
    weights = random_weights(shape)
    tokens = tokens_of(byte_level(gpt2()), "gpt2", "gpt-2")
    held = write_gguf(tmp_path / "q8.gguf", "llama", shape, weights, tokens, quantise=gguf.GGMLQuantizationType.Q8_0)
    expected = load_pretrained(write_checkpoint(tmp_path / "hf", pretrained_dict(shape), held))
    found = load_pretrained(tmp_path / "q8.gguf")
    jax.tree.map(np.testing.assert_array_equal, found[1], expected[1])
    half = {name: x.astype(np.float16) if x.ndim == 2 else x for name, x in weights.items()}
    write_gguf(tmp_path / "half.gguf", "qwen2", shape, half | biases(shape), tokens)
    folder = find_checkpoint(tmp_path / "half.gguf")
    assert b'"F16"' in (folder / "model.safetensors").read_bytes()[:20_000]
    embed = load_pretrained(folder)[1]["embed"]
    np.testing.assert_array_equal(embed, half["model.embed_tokens.weight"].astype(np.float32))


def biases(shape):
    return {name: x for name, x in random_weights(replace(shape, qkv_bias=True)).items() if name.endswith("bias")}


REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"


def cut_by(pattern: str) -> list:
    from tokenizers import Regex

    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return [pre_tokenizers.Split(Regex(pattern), "isolated"), level]


@pytest.mark.parametrize(
    ("name", "cut", "begins"),
    [
        ("gpt-2", gpt2, False),
        ("smollm", lambda: [pre_tokenizers.Digits(individual_digits=True), *gpt2()], False),
        ("qwen2", lambda: cut_by(WORDS + r"\p{N}" + REST), False),
        ("llama-bpe", lambda: cut_by(WORDS + r"\p{N}{1,3}" + REST), True),
    ],
)
def test_a_byte_level_tokenizer_gives_the_same_ids_and_text(tmp_path, name, cut, begins):
    original = byte_level(cut())
    write_gguf(tmp_path / "t.gguf", "qwen3", CASES["qwen3"], random_weights(CASES["qwen3"]),
               tokens_of(original, "gpt2", name))  # fmt: skip
    folder = find_checkpoint(tmp_path / "t.gguf")
    tokenizer = pretrained_tokenizer(folder)
    for text in TEXTS:
        assert encode(tokenizer, text) == original.encode(text, add_special_tokens=False).ids
    assert decode(tokenizer, [encode(tokenizer, TEXTS[2])]) == [TEXTS[2]]
    assert tokenizer("7")["input_ids"] == [1] * begins + encode(tokenizer, "7")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, listed_stop_tokens(folder)) == (1, 4, (4,))
    assert renderer(tokenizer, "chat", "")("Hi") == "<|im_start|>user\nHi<|im_end|>\n"


@pytest.mark.parametrize("prefix", [True, False])  # Gemma's has none
def test_a_sentencepiece_tokenizer_gives_the_same_ids_and_text(tmp_path, prefix):
    original = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    first = [normalizers.Prepend("▁")] if prefix else []
    original.normalizer = normalizers.Sequence([*first, normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL + bytes_, show_progress=False)
    original.train_from_iterator(["how many apples and more apples", "howl and man", "so many more"], trainer)
    count = original.get_vocab_size()
    shape = replace(SHAPE, vocab_size=count)
    tokens = tokens_of(original, "llama", "default") | {"add_space_prefix": prefix}
    write_gguf(tmp_path / "t.gguf", "llama", shape, random_weights(shape), tokens)
    tokenizer = pretrained_tokenizer(find_checkpoint(tmp_path / "t.gguf"))
    for text in ("how many apples", "  more and  howl", "é雪", "so"):
        assert encode(tokenizer, text) == original.encode(text, add_special_tokens=False).ids
        assert decode(tokenizer, [encode(tokenizer, text)]) == [text]
    assert tokenizer("so")["input_ids"] == [1, *encode(tokenizer, "so")]
    assert encode(tokenizer, renderer(tokenizer, "plain", "")("so")) == [1, *encode(tokenizer, "so")]


def test_a_file_is_converted_once_and_again_when_it_changes(tmp_path):
    tokens, file = tokens_of(byte_level(gpt2()), "gpt2", "gpt-2"), tmp_path / "t.gguf"
    write_gguf(file, "llama", SHAPE, random_weights(SHAPE), tokens)
    folder = find_checkpoint(file)
    before = (folder / "model.safetensors").stat()
    assert find_checkpoint(file) == folder
    assert (folder / "model.safetensors").stat() == before
    larger = replace(SHAPE, num_layers=3)
    write_gguf(file, "llama", larger, random_weights(larger), tokens)
    assert load_pretrained(file)[0].num_layers == 3
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("kind", "keys", "changes", "tokens", "message"),
    [
        ("gemma2", {}, {}, {}, "of the kind 'gemma2', which is not supported; llama, qwen2, qwen3, gemma3 are"),
        ("gemma3", {}, {}, {}, "lacks the key gemma3.attention.sliding_window"),
        ("llama", {"expert_count": 8}, {}, {}, "a mixture of 8 experts"),
        ("llama", {"attention__sliding_window": 7}, {}, {}, "attention.sliding_window"),
        ("llama", {}, {"blk.0.attn_q.bias": np.zeros(32, np.float32)}, {}, "also has blk.0.attn_q.bias"),
        ("qwen2", {}, {}, {}, "lacks blk.0.attn_q.bias"),
        (
            "llama",
            {},
            {},
            {"tokenizer_pre": "tekken"},
            "tokenizer of the kind 'gpt2', 'tekken', which is not",
        ),
        ("llama", {}, {}, {"tokenizer_model": "bert"}, "tokenizer of the kind 'bert'"),
        ("llama", {}, {"rope_freqs.weight": np.linspace(1, 8, 4).astype(np.float32)}, {}, "by the rule of Llama 3.1"),
    ],
)
def test_what_is_not_supported_is_named(tmp_path, kind, keys, changes, tokens, message):
    given = tokens_of(byte_level(gpt2()), "gpt2", "gpt-2") | tokens
    write_gguf(tmp_path / "t.gguf", kind, SHAPE, random_weights(SHAPE), given, changes, **keys)
    with pytest.raises(CheckpointError) as error:
        find_checkpoint(tmp_path / "t.gguf")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache" / "rlvr_jax" / "gguf").iterdir())


def test_what_is_no_gguf_file_is_named(tmp_path):
    write_gguf(tmp_path / "t.gguf", "llama", SHAPE, random_weights(SHAPE), {})
    data = (tmp_path / "t.gguf").read_bytes()
    cut = {f"cut{n}": data[: n * len(data) // 16] for n in range(1, 16)}  # header, keys, names and numbers of tensors
    for name, content in (cut | {"text": b"GGML and more", "last": data[:-1], "empty": b""}).items():
        (tmp_path / f"{name}.gguf").write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name}\.gguf is not a whole GGUF file"):
            find_checkpoint(tmp_path / f"{name}.gguf")
    with pytest.raises(CheckpointError, match=r"there is no file .*absent\.gguf"):
        find_checkpoint(tmp_path / "absent.gguf")
