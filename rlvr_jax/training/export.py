"""Export of a run's policy as a Hugging Face checkpoint: weights, config, tokenizer, generation config."""

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax

from rlvr_jax import parallel, policy
from rlvr_jax.config import Config, anywhere
from rlvr_jax.errors import ConfigError
from rlvr_jax.hf.export import Lazy, save_pretrained
from rlvr_jax.hf.families import TEXT_MODELS
from rlvr_jax.hf.peft import save_adapters
from rlvr_jax.hf.pretrained import stored_dtype
from rlvr_jax.hf.source import (
    GENERATION_CONFIG,
    companion_files,
    find_checkpoint,
    listed_stop_tokens,
    read_generation_config,
)
from rlvr_jax.hf.source import read_config as read_checkpoint
from rlvr_jax.training.setup import Setup, make_setup
from rlvr_jax.training.start import open_run
from rlvr_jax.training.workdir import HELDOUT, holds_reward_model, read_config


def export(
    workdir: Path,
    out: Path,
    dtype: Literal["", "float32", "bfloat16", "float16"] = "",
    adapters: bool = False,
    step: int | None = None,
) -> int:
    """Exports a checkpoint of a run without an accelerator, one parameter at a time, and returns its step.

    Adapters are merged into the weights unless `adapters` is set. Then the base policy is exported to the subfolder
    "base" if it is not a published checkpoint: in a run without `pretrained`, with a multimodal one, or one that
    started from a run which changed the weights.

    Args:
      workdir: of a run of any kind; of a reward model, whose checkpoint is that of a classifier with one label and has
        the statistics of its rewards beside it.
      out: the output folder.
      dtype: of the weights; empty for that of the run's pretrained checkpoint, or of its parameters without one.
      adapters: write only the adapters, in the format of `peft`.
      step: of the checkpoint; the newest by default.

    Raises:
      ConfigError, CheckpointError: the run can't be read, or the folder is not empty.
    """
    config = read_config(workdir)
    host = jax.devices("cpu")[:1]  # accelerators stay free for a run
    portable = dataclasses.replace(config, policy=dataclasses.replace(config.policy, attention="auto"))
    setup = make_setup(anywhere(portable, 1), problems=False, devices=host)
    network = "reward" if holds_reward_model(workdir) else "policy"
    with parallel.use_mesh(setup.mesh), open_run(setup, workdir, step, network) as (params, step):
        pairs = jax.tree.map(lambda x: x.read(), params.get(policy.ADAPTERS, {}))
        if pairs:
            params = params | {policy.ADAPTERS: pairs}
        if adapters:
            known = is_pretrained(config)
            save_adapters(out, setup.policy, params, config.pretrained if known else str(out / "base"))
            if known:
                return step
            out, params = out / "base", policy.base(params)
        if policy.ADAPTERS in params:
            params = _merged(setup.policy, params)
        shape = dataclasses.replace(setup.policy, lora=policy.LoraConfig())
        source = find_checkpoint(config.pretrained) if config.pretrained else None
        if source:
            dtype = dtype or stored_dtype(source)
        with tempfile.TemporaryDirectory() as folder:
            files, extra = _companions(setup, source, Path(folder))
            if network == "reward":
                files += [workdir / HELDOUT] * (workdir / HELDOUT).is_file()
                extra = {**extra, "pad_token_id": setup.tokenizer.pad_token_id}
            save_pretrained(out, shape, params, source=source, dtype=dtype or None, files=files, extra=extra)
    return step


def is_pretrained(config: Config) -> bool:
    """True if the weights below a run's adapters are all those of `config.pretrained`, as far as is known."""
    if not config.pretrained or not config.policy.lora.rank:
        return False
    if read_checkpoint(find_checkpoint(config.pretrained, weights=False)).get("model_type") in TEXT_MODELS:
        return False  # whose modules have other names than those of its text model
    if not config.init_from:
        return True
    try:
        earlier = read_config(Path(config.init_from).expanduser())
    except ConfigError:
        return False
    return earlier.pretrained == config.pretrained and is_pretrained(earlier)


def _merged(config: policy.PolicyConfig, params: policy.Params) -> policy.Params:
    """`policy.merged` of `Lazy` parameters and adapters that have been read."""
    result = policy.base(params)
    for part, pairs in params[policy.ADAPTERS].items():
        weights = dict(result["layers"][part])
        for name, pair in pairs.items():
            read = partial(_merged_weight, config, weights[name], pair)
            weights[name] = dataclasses.replace(weights[name], read=read)
        result = result | {"layers": result["layers"] | {part: weights}}
    return result


def _merged_weight(config: policy.PolicyConfig, weight: Lazy, pair: Mapping[str, jax.Array]) -> jax.Array:
    return jax.jit(policy.merged_weight, static_argnums=0, donate_argnums=1)(config, weight.read(), pair)


def _companions(setup: Setup, source: Path | None, folder: Path) -> tuple[list[Path], dict[str, Any]]:
    """The files of the tokenizer and a generation config, and the token ids for config.json.

    The files of the pretrained checkpoint are copied, except a tokenizer that differs from the run's, and an incomplete
    list of stop tokens. New files are written to `folder`.
    """
    tokenizer, came_from = setup.tokenizer, setup.tokenizer_folder
    ids: dict[str, Any] = {}
    if came_from is None:
        tokenizer.save_pretrained(folder)
    if came_from is None or came_from != source:
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    files = sorted(folder.iterdir()) if came_from is None else companion_files(came_from)
    if not ids and {*setup.stop_tokens} <= {*listed_stop_tokens(source)}:
        return files, {}
    old = read_generation_config(source) if source else {}
    generation = old | ids | {"eos_token_id": list(setup.stop_tokens)}
    written = folder / GENERATION_CONFIG
    written.write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    return [*(file for file in files if file.name != GENERATION_CONFIG), written], ids
