"""Adapters in the file format of the `peft` library, which inference engines load together with the base model."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.families import FAMILIES, closest_family
from rlvr_jax.hf.layout import entries
from rlvr_jax.hf.safetensors import write_file
from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.policy.model import ADAPTERS, Params


def save_adapters(folder: Path, config: PolicyConfig, params: Params, base_model: str) -> None:
    """Writes adapter_config.json and adapter_model.safetensors (float32) into a new folder.

    Args:
      folder: the output.
      config, params: a policy with adapters, layers stacked.
      base_model: folder or hub id of the checkpoint of the base policy.

    Raises:
      CheckpointError: the parameters have no adapters, some that the family's modules have no place for, or the folder
        is in use.
    """
    if ADAPTERS not in params:
        raise CheckpointError(
            "these parameters have no adapters (config.policy.lora.rank = 0); export the whole policy"
        )
    model_type = closest_family(config)
    if FAMILIES[model_type].fused and {*config.lora.targets} & {"q", "k", "v", "gate", "up"}:
        raise CheckpointError(
            f"a checkpoint of model_type {model_type!r} has one module for q, k and v and one for gate and up, which "
            "take no separate adapters; export the whole policy"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} is there already; choose another folder for the export, or remove it")
    tensors = _tensors(config, params)
    modules = sorted({name.split(".")[-3] for name in tensors})
    record = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": config.lora.rank,
        "lora_alpha": config.lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": modules,
    }
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {name: ("F32", tensor.shape) for name, tensor in tensors.items()}
    write_file(folder / "adapter_model.safetensors", shapes, tensors.values())
    # Written last: without it the folder is not an adapter.
    (folder / "adapter_config.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _tensors(config: PolicyConfig, params: Params) -> Mapping[str, np.ndarray]:
    found, rank = {}, config.lora.rank
    for entry in entries(config):
        _, part, name = entry.path if len(entry.path) == 3 else (None, None, None)
        pair = params[ADAPTERS].get(part, {}).get(name)
        if pair is None:
            continue
        a, b = (np.asarray(pair[which][entry.layer], np.float32) for which in "ab")
        module = f"base_model.model.{entry.name.removesuffix('.weight')}"
        found[f"{module}.lora_A.weight"] = np.ascontiguousarray(a.reshape(-1, rank).T)
        found[f"{module}.lora_B.weight"] = np.ascontiguousarray(b.reshape(rank, -1).T)
    return found
