"""A group of samples of one long prompt: the savings of sharing the prompt in sampling and in training."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from rlvr_jax import policy
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch, layout
from rlvr_jax.learner.losses import policy_gradient
from rlvr_jax.learner.optimizer import OptimizerConfig, make_optimizer
from rlvr_jax.learner.packing import pack
from rlvr_jax.learner.step import new_state, train_step
from rlvr_jax.policy import PolicyConfig
from rlvr_jax.rollout.sampler import SamplingConfig

from .parts import GROUP, PROMPT, RESPONSE, side_by_side, table
from .rollouts import requests, rollout

CONFIG = PolicyConfig(
    vocab_size=512, num_layers=4, width=256, num_heads=4, num_kv_heads=2, head_dim=64, mlp_width=1024, remat="full"
)


def prefix(runs: int) -> str:
    """Sampling and one training step of 16 responses of 128 tokens to one prompt of 1,024, shared and not.

    Between the two are slots: they compute the prompt once, and each has a copy of its KV cache.
    """
    rng = np.random.default_rng(0)
    params = jax.jit(partial(policy.init, CONFIG))(jax.random.key(0))
    prompt = rng.integers(0, CONFIG.vocab_size, (1, PROMPT)).astype(np.int32)
    responses = rng.integers(0, CONFIG.vocab_size, (GROUP, RESPONSE)).tolist()
    batch = layout(np.repeat(prompt, GROUP, axis=0).tolist(), responses, PROMPT, RESPONSE)
    shape = batch.action_mask.shape
    batch = batch.with_columns(advantages=np.float32(rng.normal(size=shape)), behaviour=np.zeros(shape, np.float32))
    shared = pack(batch, GROUP)
    sampling = side_by_side(
        {
            "shared": _rollout(params, prompt, GROUP),
            "slots": _rollout(params, prompt, GROUP, slots=GROUP),
            "separate": _rollout(params, np.repeat(prompt, GROUP, axis=0), 1),
        },
        runs,
    )
    training = side_by_side({"shared": _update(params, shared), "separate": _update(params, batch)}, runs)
    cached = 2 * CONFIG.num_layers * CONFIG.num_kv_heads * CONFIG.head_dim * 4 * PROMPT / 2**20
    tokens = {"shared": shared.tokens.size, "separate": batch.tokens.size}
    lines = [
        ["prompt tokens computed in sampling", f"{PROMPT}", f"{GROUP * PROMPT}", f"{GROUP:.2f}"],
        ["KV cache of prompts, MiB", f"{cached:.1f}", f"{GROUP * cached:.1f}", f"{GROUP:.2f}"],
        _line("rollout, s", sampling, "{:.2f}"),
        _line("rollout, s, with a copy for each slot", sampling | {"separate": sampling["slots"]}, "{:.2f}"),
        _line("tokens computed in training", tokens, "{}"),
        _line("training step, s", training, "{:.2f}"),
    ]
    what = f"{GROUP} responses of {RESPONSE} tokens to a prompt of {PROMPT}"
    head = (what, "shared", "separate", "separate / shared")
    return table(head, lines)


def _line(name: str, values: dict[str, float], form: str) -> list[str]:
    ratio = values["separate"] / values["shared"]
    return [name, form.format(values["shared"]), form.format(values["separate"]), f"{ratio:.2f}"]


def _rollout(params: policy.Params, prompts: np.ndarray, group: int, slots: int = 0) -> Callable[[], object]:
    sampling = SamplingConfig(PROMPT, RESPONSE, group, batch_size=len(prompts), slots=slots)
    return rollout(CONFIG, sampling, params, [requests(prompts, group, [RESPONSE] * GROUP)])


def _update(params: policy.Params, batch: Batch) -> Callable[[], object]:
    optimizer = make_optimizer(OptimizerConfig(), num_updates=1)
    loss = policy_gradient(CONFIG, AlgorithmConfig(), temperature=1.0, max_length=RESPONSE)
    compiled = jax.jit(partial(train_step, loss, {"policy": optimizer}, 1))
    states = {"policy": jax.jit(partial(new_state, optimizer))(params)}
    return lambda: compiled(states, batch)[1]
