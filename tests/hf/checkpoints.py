"""Checkpoints in folders, made from golden files without the code that is tested."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from rlvr_jax.hf.families import pretrained_dict
from rlvr_jax.hf.layout import entries
from rlvr_jax.policy.config import PolicyConfig
from tests.golden import make_golden


def golden_weights(golden: dict[str, Any], dtype: str = "float32") -> dict[str, np.ndarray]:
    """The tensors of a golden file."""
    values = make_golden.weights(golden["shapes"], golden["seed"])
    return {name: value.astype(jnp.dtype(dtype)) for name, value in values.items()}


def write_checkpoint(
    folder: Path, config: dict[str, Any], weights: dict[str, np.ndarray], files: int = 1, metadata: Any = None
) -> Path:
    """A checkpoint as `transformers` would write it, by the safetensors library."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    if files == 1:
        save_file(weights, folder / "model.safetensors", metadata or {"format": "pt"})
        return folder
    places = {}
    for part in range(files):
        name = f"model-{part + 1:05}-of-{files:05}.safetensors"
        own = {key: weights[key] for key in sorted(weights)[part::files]}
        save_file(own, folder / name, {"format": "pt"})
        places |= dict.fromkeys(own, name)
    index = {"metadata": {"total_size": sum(x.nbytes for x in weights.values())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def random_weights(config: PolicyConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors of a checkpoint of this shape, whose norms are about 1."""
    rng = np.random.default_rng(seed)
    around = lambda name: float(name.endswith("norm.weight"))  # noqa: E731
    return {e.name: np.float32(around(e.name) + 0.1 * rng.normal(size=e.shape)) for e in entries(config)}


def write_model(folder: Path, tokenizer: Any, config: PolicyConfig, seed: int = 0, **generation: Any) -> Path:
    """A checkpoint of random weights with a tokenizer and a generation config."""
    write_checkpoint(folder, pretrained_dict(config), random_weights(config, seed))
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def stored_bytes(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of every tensor in a folder, read by the format's definition."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        data = file.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8:start]).items():
            if name != "__metadata__":
                first, last = entry["data_offsets"]
                assert name not in found
                found[name] = (entry["dtype"], tuple(entry["shape"]), data[start + first : start + last])
    return found
