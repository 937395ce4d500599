"""Policies for interactive use, from a checkpoint, a run, or the beginning of a run."""

from dataclasses import replace
from pathlib import Path

import jax

from rlvr_jax import parallel, policy
from rlvr_jax.config import anywhere
from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.pretrained import load_pretrained, pretrained_config, stored_dtype
from rlvr_jax.hf.source import find_checkpoint, listed_stop_tokens
from rlvr_jax.policy import LoraConfig, Params, PolicyConfig
from rlvr_jax.rollout.model import HEAD_CHUNK, Model
from rlvr_jax.text.prompts import end_of_turn
from rlvr_jax.text.tokenizers import pretrained_tokenizer, stop_tokens
from rlvr_jax.training.setup import Setup, make_setup
from rlvr_jax.training.start import initial_params, load_run
from rlvr_jax.training.workdir import read_config


def load(path: str | Path, dtype: str | None = None, step: int | None = None) -> Model:
    """See `rlvr_jax.load`; of a run the policy of a step, by default the newest."""
    if dtype not in (None, "float32", "bfloat16"):
        raise ValueError(f"dtype must be 'float32', 'bfloat16' or None, not {dtype!r}")
    workdir = Path(path).expanduser()
    if any((workdir / name).exists() for name in ("checkpoints", "checkpoints.txt")):
        return _of_run(workdir, dtype, step)
    config, params = load_pretrained(path, dtype=dtype)
    folder = find_checkpoint(path)
    try:
        tokenizer = pretrained_tokenizer(folder)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    stops = stop_tokens(tokenizer, (*listed_stop_tokens(folder), end_of_turn(tokenizer)))
    return Model(replace(config, head_chunk=HEAD_CHUNK), params, tokenizer, stops)


def architecture(path: str | Path) -> PolicyConfig:
    """The architecture of `load(path)`, without its parameters. Raises as `load`."""
    workdir = Path(path).expanduser()
    if (workdir / "config.json").is_file() and (workdir / "metrics.jsonl").is_file():
        made = make_setup(anywhere(read_config(workdir), jax.device_count()), problems=False)
        return replace(made.policy, lora=LoraConfig())
    dtype = stored_dtype(find_checkpoint(path))
    return replace(pretrained_config(path), dtype=dtype, param_dtype=dtype)


def _of_run(workdir: Path, dtype: str | None, step: int | None) -> Model:
    setup = make_setup(anywhere(read_config(workdir), jax.device_count()), problems=False)
    with parallel.use_mesh(setup.mesh):
        params, _ = load_run(setup, workdir, step)
    return model_of(setup, params, dtype)


def initial_model(setup: Setup, step: int | None = None) -> Model:
    """The policy that a run starts from, as `initial_params`."""
    return model_of(setup, initial_params(setup, jax.random.key(setup.config.seed), step))


def model_of(setup: Setup, params: Params, dtype: str | None = None) -> Model:
    """A policy of a run, with merged adapters, on the first device of this process."""
    params = policy.merged(setup.policy, jax.device_put(params, jax.local_devices()[0]))
    config = replace(setup.policy, lora=LoraConfig(), head_chunk=HEAD_CHUNK)
    if dtype:
        config = replace(config, dtype=dtype, param_dtype=dtype)
        params = jax.tree.map(lambda x: x.astype(dtype), params)
    return Model(config, params, setup.tokenizer, setup.stop_tokens)
