"""Conversion of GGUF files (llama.cpp) to Hugging Face checkpoints: architecture, tensors, tokenizer, chat template.

A file is converted once, into a folder of the cache, which then is a checkpoint like any other. Weights keep their
values: quantised ones become float32, which is exact. Format: github.com/ggml-org/ggml, docs/gguf.md.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.families import FAMILIES, policy_config
from rlvr_jax.hf.gguf_tokenizer import tokenizer_files
from rlvr_jax.hf.layout import Entry, entries
from rlvr_jax.hf.safetensors import DTYPES, SINGLE, write_file

_ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3_text"}  # to `model_type`
_VERSION = 1  # of the output format; a new one converts files again
_EXACT = ("F32", "F16", "BF16")  # types of tensors that are kept
_FREQUENCIES = "rope_freqs.weight"  # what Llama 3's frequencies are divided by
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def converted(file: Path) -> Path:
    """The folder of the checkpoint of a GGUF file, converted if it is not in the cache.

    Raises:
      CheckpointError: not a GGUF file, or an unsupported one, with the reason.
    """
    file = file.resolve()
    stat = file.stat()
    key = hashlib.blake2b(f"{file}/{stat.st_size}/{stat.st_mtime_ns}/{_VERSION}".encode(), digest_size=8).hexdigest()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rlvr_jax" / "gguf"
    folder = cache / f"{file.stem}-{key}"
    if folder.is_dir():
        return folder
    unfinished = cache / f".{folder.name}-{os.getpid()}"
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        convert(file, unfinished)
        if not folder.is_dir():  # another process may have been faster
            unfinished.rename(folder)
    except OSError as error:
        raise CheckpointError(f"{file} can't be converted in {cache}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def convert(file: Path, folder: Path) -> None:
    """Writes the checkpoint in a GGUF file into a folder; see `converted` for errors."""
    import gguf  # here, because few runs need it

    try:
        reader = gguf.GGUFReader(file)
        values = {key: field.contents() for key, field in reader.fields.items()}
    except Exception as error:  # of a truncated file, or one of another format
        what = f"{file} is not a whole GGUF file; if a download was interrupted, repeat it"
        raise CheckpointError(f"{what} ({type(error).__name__}: {error})") from error
    if values.get("split.count", 1) > 1:
        raise CheckpointError(f"{file} is one of {values['split.count']} parts; merge them (llama-gguf-split --merge)")
    kind = values.get("general.architecture")
    if kind not in _ARCHITECTURES:
        raise CheckpointError(
            f"{file} holds a model of the kind {kind!r}, which is not supported; {', '.join(_ARCHITECTURES)} are"
        )
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = _config(file, kind, values, tensors)
    shape = policy_config(config, str(file))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[kind.upper()], shape.num_layers)
    theirs = lambda entry: names.get_name(entry.name, try_suffixes=(".weight", ".bias"))  # noqa: E731
    places = {entry: theirs(entry) for entry in entries(shape)}
    missing = [name for name in places.values() if name not in tensors]
    extra = sorted(tensors.keys() - {*places.values(), _FREQUENCIES})
    if missing or extra:
        lines = [f"{what} {', '.join(found[:4])}" for what, found in (("lacks", missing), ("also has", extra)) if found]
        raise CheckpointError(f"{file} has not the tensors of a {kind}: it {' and '.join(lines)}")
    for name, text in tokenizer_files(str(file), values).items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    read = partial(_tensor, kind, config)
    stored = {entry.name: (_stored_type(tensors[name]), entry.shape) for entry, name in places.items()}
    write_file(folder / SINGLE, stored, (read(entry, tensors[name]) for entry, name in places.items()))


def _config(file: Path, kind: str, values: Mapping[str, Any], tensors: Mapping[str, Any]) -> dict[str, Any]:
    """config.json."""

    def get(key: str, default: Any = None) -> Any:
        value = values.get(f"{kind}.{key}", default)
        if value is None:
            raise CheckpointError(f"{file} lacks the key {kind}.{key}")
        return value

    if get("expert_count", 0):
        raise CheckpointError(f"{file} holds a mixture of {get('expert_count')} experts, which is not supported")
    if kind != "gemma3" and 0 < get("attention.sliding_window", 0) < get("context_length"):
        raise CheckpointError(f"{file} asks for attention.sliding_window, which is not supported")
    heads, width = get("attention.head_count"), get("embedding_length")
    dim = get("attention.key_length", get("rope.dimension_count", width // heads))
    theta, table = get("rope.freq_base", 10_000.0), tensors.get("token_embd.weight")
    if table is None:
        raise CheckpointError(f"{file} has no token_embd.weight")
    token = lambda name: values.get(f"tokenizer.ggml.{name}_token_id")  # noqa: E731
    model_type = _ARCHITECTURES[kind]
    config = {
        "architectures": [FAMILIES[model_type].architecture],
        "model_type": model_type,
        "vocab_size": int(table.shape[1]),  # of which GGUF has the last axis first
        "num_hidden_layers": get("block_count"),
        "hidden_size": width,
        "intermediate_size": get("feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", heads),
        "head_dim": dim,
        "max_position_embeddings": get("context_length"),
        "rms_norm_eps": float(f"{get('attention.layer_norm_rms_epsilon'):.6g}"),  # a float32 there
        "rope_theta": theta,
        "rope_scaling": _rope_scaling(file, kind, values, tensors, dim, theta),
        "attention_bias": False,
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": token("bos"),
        "eos_token_id": token("eos"),
        "pad_token_id": token("padding"),
        "torch_dtype": "float32",
    }
    return config | (_of_gemma3(get, config) if kind == "gemma3" else {"hidden_act": "silu"})


def _of_gemma3(get: Callable[..., Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of config.json that Gemma 3 has beyond others. Where the file lacks one, llama.cpp's code has this value."""
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    every = get("attention.sliding_window_pattern", 6)
    slides = every if isinstance(every, list) else [(i + 1) % every != 0 for i in range(layers)]
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": get("attention.sliding_window"),
        "layer_types": ["sliding_attention" if slide else "full_attention" for slide in slides],
        "rope_local_base_freq": get("rope.freq_base_swa", 10_000.0),
        # The 27B model, known by its layers, scales by the width of a head, which in it is not `head_dim`.
        "query_pre_attn_scalar": config["hidden_size"] // heads if layers == 62 else config["head_dim"],
    }


def _rope_scaling(
    file: Path, kind: str, values: Mapping[str, Any], tensors: Mapping[str, Any], dim: int, theta: float
) -> dict[str, Any] | None:
    """The rescaling of the rotary frequencies, in the terms of config.json."""
    if _FREQUENCIES in tensors:
        # The file has the divisors themselves; they are those of Llama 3's rule, or of one that is not known.
        divisors = np.asarray(tensors[_FREQUENCIES].data, np.float64)
        rule = {"rope_type": "llama3", "factor": float(divisors.max()), **_LLAMA3}
        if divisors.shape != (dim // 2,) or not np.allclose(divisors, _llama3_divisors(rule, dim, theta), rtol=1e-4):
            raise CheckpointError(f"{file}: {_FREQUENCIES} are not by the rule of Llama 3.1, which alone is supported")
        return rule
    scaling = {key: values[f"{kind}.rope.scaling.{key}"] for key in ("type", "factor", "original_context_length")
               if f"{kind}.rope.scaling.{key}" in values}  # fmt: skip
    rope_type = scaling.get("type", "none")
    if rope_type == "none":
        return None
    if rope_type not in ("linear", "yarn"):
        raise CheckpointError(f"{file}: rope.scaling.type {rope_type!r} is not supported; linear and yarn are")
    rule = {"rope_type": rope_type, "factor": scaling["factor"]}
    if rope_type == "yarn":
        rule["original_max_position_embeddings"] = scaling["original_context_length"]
    return rule


def _llama3_divisors(rule: Mapping[str, Any], dim: int, theta: float) -> np.ndarray:
    """The divisors of Dubey et al. 2024 (arXiv:2407.21783) and Meta's code, for low frequencies, with a ramp."""
    frequencies = theta ** -(np.arange(0, dim, 2) / dim)
    turns = rule["original_max_position_embeddings"] * frequencies / (2 * np.pi)
    low, high = rule["low_freq_factor"], rule["high_freq_factor"]
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / rule["factor"] + smooth)


def _stored_type(tensor: Any) -> str:
    return tensor.tensor_type.name if tensor.tensor_type.name in _EXACT else "F32"


def _tensor(kind: str, config: Mapping[str, Any], entry: Entry, tensor: Any) -> np.ndarray:
    """A tensor in the layout of `transformers`."""
    import gguf

    values = gguf.dequantize(tensor.data, tensor.tensor_type).reshape(entry.shape)
    if kind == "llama" and entry.path[-1] in ("q", "k"):
        # llama.cpp rotates adjacent pairs, `transformers` pairs of halves: the order of rows differs.
        heads = config["num_attention_heads" if entry.path[-1] == "q" else "num_key_value_heads"]
        rows, columns = entry.shape
        values = values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    if kind == "gemma3" and entry.path[-1].endswith("norm"):
        values = values - 1  # llama.cpp adds the offset of these norms to their scales
    return np.ascontiguousarray(values.astype(DTYPES[_stored_type(tensor)]))
