"""The sampler: a service that is given requests for turns of the policy and gives back turns. It knows tokens only.

The tokens of a turn depend on its request, the tokens before it and the parameters alone: not on who else is sampled,
nor on which engine samples it. What is computed when depends on the order of the calls and on numbers of tokens, never
on the clock.
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
    """A copy of the parameters as decoding reads them: layer by layer, and cast to the type they are computed in.

    Decoding reads every weight for every token, so neither the slicing nor the cast may stay in its loop. `forward`
    would cast the same leaves before using them; the last norm it takes as it is.
    """
    cast = jax.tree.map(lambda x: x.astype(config.dtype), {k: v for k, v in params.items() if k != "norm"})
    # jit would hand on what it leaves as it is, and the training step reuses that memory.
    return jax.tree.map(jnp.copy, policy.unstack(params | cast))


class Sampler:
    """Samples turns from the policy on a mesh of its own or the trainer's.

    Args:
      config: the policy's shape.
      sampling: see `SamplingConfig`.
      mesh: the devices to sample on.

    Raises:
      ValueError: the numbers in `sampling` don't go together or don't fit the mesh.
    """

    def __init__(self, config: PolicyConfig, sampling: SamplingConfig, mesh: Mesh) -> None:
        shapes = jax.eval_shape(partial(policy.init_with_adapters, config), jax.random.key(0))
        self._config, self.sampling, self._mesh = config, sampling, mesh
        self._shardings = parallel.param_shardings(mesh, policy.axes_with_adapters(config), shapes)
        self._engine = (Slotted if sampling.slots else Batches)(config, sampling, mesh, self._shardings)
        self._window = sampling.window or sampling.prompt_length + sampling.max_response_length
        self._params, self._version = None, 0
        self._flying: set[int] = set()
        self._episodes: dict[int, tuple[list[np.ndarray], int]] = {}  # that may go on: tokens, how many were drawn

    @property
    def stats(self) -> RolloutStats:
        """The cost of all sampling so far; subtract what it was earlier."""
        return self._engine.stats

    def set_params(self, params: Params, version: int) -> None:
        """Samples with these parameters from now on, of which it makes a copy; they may lie on any mesh.

        The keys and values of episodes that may go on are another policy's from now on: they are computed anew.

        Raises:
          RuntimeError: turns are in flight.
        """
        if self._flying:
            raise RuntimeError(f"the parameters can't change while {len(self._flying)} turns are in flight")
        with parallel.use_mesh(self._mesh):
            self._params = prepare(self._config, jax.device_put(params, self._shardings))
        self._version = version
        self._engine.forget()

    def submit(self, requests: Sequence[Request]) -> None:
        """Puts turns into the queue.

        Raises:
          ValueError: a request is out of range, or its id is in flight, unknown, or may go on already; nothing has been
            queued.
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

    def poll(self) -> list[Turn]:
        """Runs the device until at least one turn has finished, and returns those that have; [] if none is in flight.

        The device has its next work before this returns.
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
        """Gives up the memory of episodes that will not go on. Those that are not kept are passed over.

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
            raise ValueError(f"{name} needs a prompt, or new tokens behind its last turn, and not both")
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
