"""The sampler: a service that takes requests and returns turns of the policy. It knows tokens only.

The tokens of a turn depend only on its request, the tokens before it and the parameters, not on other requests or the
engine. Scheduling depends on the order of the calls and on token counts, never on the clock.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import isfinite

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rlvr_jax import parallel, policy
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.rollout.batches import Batches
from rlvr_jax.rollout.continuous import Slotted
from rlvr_jax.rollout.requests import NO_TOKENS, Request, RolloutStats, Turn, episode_keys
from rlvr_jax.rollout.sampling import SamplingConfig

__all__ = ["Request", "RolloutStats", "Sampler", "SamplingConfig", "Turn", "episode_keys", "prepare"]


@partial(jax.jit, static_argnums=0)
def prepare(config: PolicyConfig, params: Params) -> Params:
    """A copy of the parameters for decoding: unstacked layers, cast to the compute dtype.

    Decoding reads every weight for every token, so slicing and casting must not be in its loop. `forward` casts the
    same leaves before use, except the last norm.
    """
    cast = jax.tree.map(lambda x: x.astype(config.dtype), {k: v for k, v in params.items() if k != "norm"})
    # jit would pass unchanged arrays through, and the training step donates their memory.
    return jax.tree.map(jnp.copy, policy.unstack(params | cast))


class Sampler:
    """Samples turns from the policy, on its own mesh or the trainer's.

    Args:
      config: the policy's architecture.
      sampling: see `SamplingConfig`.
      mesh: the devices to sample on.

    Raises:
      ValueError: the settings in `sampling` are inconsistent or don't fit the mesh.
    """

    def __init__(self, config: PolicyConfig, sampling: SamplingConfig, mesh: Mesh) -> None:
        shapes = jax.eval_shape(partial(policy.init_with_adapters, config), jax.random.key(0))
        self._config, self.sampling, self._mesh = config, sampling, mesh
        self._shardings = parallel.param_shardings(mesh, policy.axes_with_adapters(config), shapes)
        self._engine = (Slotted if sampling.slots else Batches)(config, sampling, mesh, self._shardings)
        self._window = sampling.window or sampling.prompt_length + sampling.max_response_length
        self._params, self._version = None, 0
        self._flying: set[int] = set()
        self._episodes: dict[int, tuple[list[np.ndarray], int]] = {}  # kept: tokens, number sampled

    @property
    def stats(self) -> RolloutStats:
        """The cumulative cost of sampling."""
        return self._engine.stats

    def set_params(self, params: Params, version: int) -> None:
        """Copies the parameters, which may be on any mesh, and samples with them from now on.

        The KV cache of kept episodes is dropped and prefilled again with the new parameters.

        Raises:
          RuntimeError: turns are in flight.
        """
        if self._flying:
            raise RuntimeError(f"the parameters can't change while {len(self._flying)} turns are in flight")
        if jax.tree.leaves(params)[0].devices() != set(self._mesh.devices.flat):
            params = jax.device_put(params, self._shardings)
        with parallel.use_mesh(self._mesh):
            self._params = prepare(self._config, params)
        self._version = version
        self._engine.forget()

    def submit(self, requests: Sequence[Request]) -> None:
        """Queues requests.

        Raises:
          ValueError: a request is out of range, or its id is in flight, unknown or kept; then none is queued.
        """
        if self._params is None:
            raise RuntimeError("set_params must come before submit")
        ids = [request.id for request in requests]
        if len(set(ids)) < len(ids):
            raise ValueError("two requests have one id")
        for request in requests:
            self._check(request)
        groups: list[list[Request]] = []
        before = None
        for request in requests:
            whole = request
            if len(request.new):
                parts, drawn = self._episodes[request.id]
                whole = replace(request, prompt=np.concatenate([*parts, request.new]), new=NO_TOKENS, drawn=drawn)
            if request.keep:
                self._episodes[request.id] = [whole.prompt], whole.drawn
            else:
                self._episodes.pop(request.id, None)
            if before is whole.prompt and len(groups[-1]) < self.sampling.group_size:
                groups[-1].append(whole)
            else:
                groups.append([whole])
            before = whole.prompt
        self._flying.update(ids)
        self._engine.submit(groups)

    def ready(self) -> bool | None:
        """Dispatches waiting requests; True if the device has finished what `poll` would wait for first.

        None if nothing is in flight.
        """
        with parallel.use_mesh(self._mesh):
            return self._engine.ready(self._params) if self._flying else None

    def poll(self) -> list[Turn]:
        """Decodes until at least one turn has finished, and returns the finished turns; [] if none is in flight.

        The next chunk or batch is dispatched before this returns.
        """
        with parallel.use_mesh(self._mesh):
            ended = self._engine.poll(self._params) if self._flying else []
        turns = []
        for request, tokens, logprobs, finish in ended:
            self._flying.remove(request.id)
            if request.keep and request.id in self._episodes:
                parts, drawn = self._episodes[request.id]
                self._episodes[request.id] = [*parts, tokens], drawn + len(tokens)
            turns.append(Turn(request.id, tokens, logprobs, finish, self._version))
        return turns

    def release(self, ids: Sequence[int]) -> None:
        """Frees the KV cache of episodes that will not continue. Unknown ids are ignored.

        Raises:
          ValueError: a turn of one of them is in flight.
        """
        for i in ids:
            if i in self._flying:
                raise ValueError(f"a turn of episode {i} is in flight")
            self._episodes.pop(i, None)
        self._engine.release(ids)

    def _check(self, request: Request) -> None:
        """Raises ValueError if a request can't be served."""
        name, sampling = f"the request of episode {request.id}", self.sampling
        if request.id in self._flying:
            raise ValueError(f"{name}: a turn of it is in flight")
        if bool(len(request.prompt)) == bool(len(request.new)):
            raise ValueError(f"{name} needs either a prompt, or new tokens after its last turn")
        if len(request.new) and request.id not in self._episodes:
            raise ValueError(f"{name} continues an episode that was not kept (Request.keep)")
        if len(request.prompt) and request.id in self._episodes:
            raise ValueError(f"{name} has a prompt, but an episode of that id is kept; release it first")
        if len(request.new):
            length = sum(map(len, self._episodes[request.id][0])) + len(request.new)
        else:
            length = len(request.prompt)
            most = self._window if request.drawn else sampling.prompt_length
            if length > most:
                raise ValueError(f"{name}: its prompt has {length} tokens; 1 to {most} fit")
        if not 1 <= request.budget <= sampling.max_response_length:
            raise ValueError(f"{name}: its budget is {request.budget}, not from 1 to {sampling.max_response_length}")
        if length + request.budget > self._window:
            raise ValueError(f"{name}: {length} tokens and a budget of {request.budget} exceed {self._window}")
        if not request.temperature >= 0 or not isfinite(request.temperature):
            raise ValueError(f"{name}: its temperature is {request.temperature}, not a number from 0 up")
        if len(request.stop_tokens) > sampling.max_stop_tokens:
            raise ValueError(
                f"{name} has {len(request.stop_tokens)} stop tokens; {sampling.max_stop_tokens} fit "
                "(SamplingConfig.max_stop_tokens)"
            )
