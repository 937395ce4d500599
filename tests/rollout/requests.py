"""Samplers over small policies, and requests for them."""

from dataclasses import replace

import jax
import numpy as np

from rlvr_jax import parallel
from rlvr_jax.parallel import MeshConfig
from rlvr_jax.rollout.sampler import Request, Sampler, SamplingConfig, episode_keys
from tests.policy.reference import TINY, random_params, random_sequences

CONFIG = replace(TINY, vocab_size=13, num_layers=1, qk_norm="head")  # the sampler unrolls its layers
PROMPT, GROUP, LENGTH = 6, 3, 20
SAMPLING = SamplingConfig(PROMPT, LENGTH, GROUP, batch_size=4, chunk=4, prefill_chunk=4)
PROMPTS = [np.asarray(x, np.int32) for x in random_sequences([2, 6, 1, 4, 6, 3], CONFIG.vocab_size)]


SIZES = (GROUP,) * len(PROMPTS)
KEYS = episode_keys(jax.random.key(7), range(64))


def make(mesh=None, devices=slice(1), **settings):
    """A sampler with the parameters of version 5."""
    mesh = parallel.make_mesh(mesh or MeshConfig(data=1), jax.devices()[devices])
    sampler = Sampler(CONFIG, replace(SAMPLING, **settings), mesh)
    sampler.set_params(random_params(CONFIG), 5)
    return sampler


def groups(sizes=SIZES, prompts=PROMPTS, **settings):
    """Requests for groups, each with a prompt of its own; a setting is for all or a function of the id."""
    requests = []
    for prompt, size in zip(prompts, sizes, strict=True):
        for _ in range(size):
            i = len(requests)
            own = {name: value(i) if callable(value) else value for name, value in settings.items()}
            requests.append(Request(i, KEYS[i], prompt, **{"budget": LENGTH, "stop_tokens": (1,)} | own))
    return requests


def polled(sampler, requests=()):
    """Everything that comes of these requests, call by call."""
    sampler.submit(requests)
    return list(iter(sampler.poll, []))


def drained(sampler, requests=()):
    """The turns of these requests by id."""
    turns = [turn for part in polled(sampler, requests) for turn in part]
    found = {turn.id: turn for turn in turns}
    assert len(found) == len(turns)
    return found
