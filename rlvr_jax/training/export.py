"""A run's policy as a Hugging Face checkpoint: weights, config, tokenizer, generation config."""

import dataclasses
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Literal

import jax

from rlvr_jax import parallel, policy
from rlvr_jax.parallel import MeshConfig
from rlvr_jax.policy.export import save_pretrained
from rlvr_jax.policy.peft import save_adapters
from rlvr_jax.policy.pretrained import companion_files, find_checkpoint, stored_dtype
from rlvr_jax.training import checkpoints
from rlvr_jax.training.setup import Setup, make_setup, param_shapes
from rlvr_jax.training.workdir import read_config


def export(
    workdir: Path, out: Path, dtype: Literal["", "float32", "bfloat16", "float16"] = "", adapters: bool = False
) -> int:
    """Writes the newest checkpoint of a run, and returns its step.

    Adapters are merged into the weights, unless they alone are wanted.

    Args:
      workdir: of a run, of reinforcement learning or a warm start.
      out: the folder to make.
      dtype: of the weights; empty for that of the checkpoint that the run started from, or else of its parameters.
      adapters: write only the adapters, in the format of `peft`.

    Raises:
      ConfigError, CheckpointError: the run can't be read, or the folder is in use.
    """
    config = read_config(workdir)
    setup = make_setup(dataclasses.replace(config, mesh=MeshConfig()), problems=False)  # whatever devices are here
    with parallel.use_mesh(setup.mesh):
        params, step = checkpoints.load_params(workdir, param_shapes(setup))
        if adapters:
            save_adapters(out, setup.policy, params, config.pretrained or str(workdir))
            return step
        if policy.ADAPTERS in params:
            params = _merge(setup.policy, policy.base(params), params[policy.ADAPTERS])
        shape = dataclasses.replace(setup.policy, lora=policy.LoraConfig())
        if config.pretrained:
            source = find_checkpoint(config.pretrained)
            files = companion_files(source)
            save_pretrained(out, shape, params, source=source, dtype=dtype or stored_dtype(source), files=files)
        else:
            with tempfile.TemporaryDirectory() as folder:
                files = _own_companions(setup, Path(folder))
                save_pretrained(out, shape, params, dtype=dtype or None, files=files, extra=_token_ids(setup))
    return step


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _merge(config: policy.PolicyConfig, base: policy.Params, adapters: policy.Params) -> policy.Params:
    return policy.merged(config, base | {policy.ADAPTERS: adapters})


def _token_ids(setup: Setup) -> dict[str, int]:
    return {"eos_token_id": setup.tokenizer.eos_token_id, "pad_token_id": setup.tokenizer.pad_token_id}


def _own_companions(setup: Setup, folder: Path) -> list[Path]:
    """The files of a tokenizer that came with no checkpoint, and a generation config."""
    setup.tokenizer.save_pretrained(folder)
    generation = _token_ids(setup) | {"eos_token_id": list(setup.stop_tokens)}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    return sorted(folder.iterdir())
