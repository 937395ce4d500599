"""Rollouts for timing."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Int

from rlvr_jax import parallel
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.rollout.sampler import Request, RolloutStats, Sampler, SamplingConfig, episode_keys


def requests(prompts: Int[np.ndarray, "prompts length"], group: int, budgets: Sequence[int]) -> list[Request]:
    """Requests for `group` samples of each prompt, without stop tokens."""
    keys, prompts = episode_keys(jax.random.key(2), range(len(budgets))), list(prompts)
    return [Request(i, key, prompts[i // group], budget=int(budgets[i])) for i, key in enumerate(keys)]


def rollout(
    config: PolicyConfig, sampling: SamplingConfig, params: Params, batches: Sequence[Sequence[Request]]
) -> Callable[[], RolloutStats]:
    """A function that samples all requests on one device, batch by batch, and returns the cost."""
    mesh = parallel.make_mesh(parallel.MeshConfig(data=1), jax.devices()[:1])
    sampler = Sampler(config, sampling, mesh)

    def call() -> RolloutStats:
        before = sampler.stats
        sampler.set_params(params, 0)
        for batch in batches:
            sampler.submit(batch)
            while sampler.poll():
                pass
        return sampler.stats - before

    return call
