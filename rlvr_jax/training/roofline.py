"""Estimated work and time of a step's phases on one device, by arithmetic: products, memory traffic, collectives.

All prompts and responses have their full lengths. A phase takes as long as the slowest of its products at the chip's
peak, its memory traffic and its collectives, and what it moves from and to the host's memory comes on top: a bound from
below that no program reaches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import jax
import jax.numpy as jnp

from rlvr_jax.learner.preferences import LOSSES
from rlvr_jax.parallel import AnyMesh
from rlvr_jax.parallel.chips import Chip, link_bandwidth, link_latency
from rlvr_jax.policy import ADAPTERS, PolicyConfig
from rlvr_jax.rollout.layout import decoded
from rlvr_jax.rollout.memory import cache_bytes
from rlvr_jax.training.functions import sampling_config
from rlvr_jax.training.hlo import Collective
from rlvr_jax.training.memory import Load, forward_bytes
from rlvr_jax.training.networks import SCALAR, networks_of, shapes_and_axes, updates_of_step
from rlvr_jax.training.plan import NETWORKS, PHASE_OF_UPDATES, Memory, scored, weight_shards
from rlvr_jax.training.setup import Setup, load_of


@dataclass(frozen=True)
class Work:
    """The work of one device in a phase of one step.

    Attributes:
      flops: of products, attention of decoding included.
      attention: FLOPs of the training attention kernels, which reach a smaller share of the chip's peak.
      bytes: read from and written to memory.
      collectives: with other devices.
      steps: sequential steps, such as tokens, microbatches.
      model_flops: of these, those that the result needs: nothing is computed twice.
      floor: bytes of weights and KV cache that decoding can't do without.
      host: bytes moved from or to the host's memory, one after the other.
    """

    flops: int | float
    attention: int | float
    bytes: int | float
    collectives: tuple[Collective, ...] = ()
    steps: int = 1
    model_flops: int | float = 0.0
    floor: int | float = 0.0
    host: int | float = 0.0


@dataclass(frozen=True)
class Times:
    """Seconds of a phase, by what could limit it.

    Attributes:
      compute, memory, interconnect: of the products, of the memory traffic, of the collectives.
      host: of the moves from and to the host's memory.
      total: the largest of the first three and the last; decoding waits for its collectives, and so adds them.
    """

    compute: int | float
    memory: int | float
    interconnect: int | float
    host: int | float
    total: int | float

    @property
    def limit(self) -> str:
        """The resource that takes longest."""
        return max(("compute", "memory", "interconnect", "host"), key=lambda name: getattr(self, name))


def matmul_params(config: PolicyConfig) -> int:
    """Weights of all layers that each token is multiplied with."""
    heads = 2 * config.num_heads * config.head_dim + 2 * config.num_kv_heads * config.head_dim
    return config.num_layers * config.width * (heads + 3 * config.mlp_width)


def visible_pairs(config: PolicyConfig, prompt: int, response: int, group: int = 1) -> float:
    """Pairs of a token and one that it attends to, summed over a row's tokens and averaged over the layers.

    Args:
      config: with the windows of the layers, which count in rows of one sample.
      prompt, response: tokens.
      group: responses in the row, each of which attends to the prompt and to itself.
    """
    if group > 1:
        return prompt**2 / 2 + group * (prompt * response + response**2 / 2)
    length = prompt + response
    windows = [min(window or length, length) for window in config.window_pattern]
    return sum(length * window - window**2 / 2 for window in windows) / len(windows)


def work(setup: Setup, memory: Memory) -> dict[str, Work]:
    """The work of each phase of a training step; `memory` is that of the run."""
    found = {"move": _move(setup, memory)} | _rollout(setup) if setup.run == "rl" else {}
    passes = {phase: _pass(setup, memory, len(names), NETWORKS[phase]) for phase, names in scored(setup).items()}
    for network in networks_of(setup.config, setup.run):
        before, phase = "values" if network == "critic" else "scoring", PHASE_OF_UPDATES[network]
        found |= {before: passes[before]} if before in passes else {}
        found[phase] = _pass(setup, memory, network=network)
    if setup.run == "preferences" and not LOSSES[setup.config.preferences.loss].paired:
        found["update"] = _sum(found["update"], _pass(setup, memory, 1))  # for the baseline
    return found


def _sum(a: Work, b: Work) -> Work:
    return Work(*(getattr(a, field.name) + getattr(b, field.name) for field in fields(Work)))


def times(work: Work, phase: str, chip: Chip, torus: Sequence[int]) -> Times:
    """The time of a phase on a slice of these chips, `torus` chips along each axis (empty for GPUs)."""
    compute = (work.flops + work.attention / chip.attention) / chip.flops
    memory = work.bytes / chip.bandwidth
    wire = sum(x.times * _seconds(x, chip, torus) for x in work.collectives)
    host = work.host / chip.host
    total = max(compute, memory) + wire if phase == "decode" else max(compute, memory, wire)
    return Times(compute, memory, wire, host, total + host)


def _seconds(x: Collective, chip: Chip, torus: Sequence[int]) -> float:
    """Of one execution. Permutations, to which the TPU compiler unrolls gathers, go both ways around at a time."""
    ways = 2 if x.kind == "collective-permute" and chip.dimensions else 1
    return x.bytes / (ways * link_bandwidth(chip, torus, x.devices)) + link_latency(chip, torus, x.devices) / ways


def _pass(setup: Setup, memory: Memory, passes: int = 0, network: str = "policy") -> Work:
    """The updates of a network in a step, or `passes` forward passes over its batch."""
    config, run, shape, mesh = setup.config, setup.run, setup.policy, setup.mesh
    data, context, tensor = (mesh.shape[name] for name in ("data", "context", "tensor"))
    fsdp = weight_shards(mesh)
    rollout, item = config.rollout, jnp.dtype(shape.dtype).itemsize
    load, group = load_of(setup, network)
    options = networks_of(config, run)[network]
    microbatches, updates = options.microbatches, updates_of_step(config) if run == "rl" else 1
    parts = microbatches * (config.algorithm.minibatches if passes and run == "rl" else updates)
    rows = load.rows * parts
    tokens, actions = rows * load.length, rows * load.actions
    outputs = 1 if network in SCALAR else shape.vocab_size
    params, head = matmul_params(shape) / tensor, outputs * shape.width / tensor
    pairs = rows * visible_pairs(shape, rollout.max_prompt_length, rollout.max_response_length, group)
    attention = 4 * shape.num_layers * shape.num_heads * shape.head_dim * pairs / (tensor * context)
    forward = 2 * (params + _adapters(shape)) * tokens, 2 * head * actions
    weights, layer = (params + head) * item, forward_bytes(shape, Load(rows, load.length, 1), tensor, "tpu")
    traffic = 2 * shape.num_layers * layer  # each value is written and read
    logits = 6 * 4 * actions * outputs / tensor
    if passes:
        bytes_ = passes * (2 * parts * weights + traffic + logits)
        sent = _gathers(shape, passes * parts, fsdp, weights) + _sums(shape, 2 * passes * parts, load, tensor)
        sent += _exchanges(shape, passes * parts, 0, load, mesh)
        flops = passes * sum(forward)
        reads = run == "rl" and config.training.offload_reference and network == "policy"
        host = memory.phases["scoring"].get("reference", 0) if reads else 0
        model = flops + passes * attention
        return Work(flops, passes * attention, bytes_, sent, passes * parts, model, host=host)
    again = shape.remat == "full"
    # Of the layers, what the backward pass computes again: all but the products after the last nonlinearity.
    repeated = forward[0] * (1 - shape.num_layers * shape.width * shape.mlp_width / tensor / params) * again
    backward = 1 if shape.lora.rank else 2
    flops = forward[0] * (1 + backward) + repeated + forward[1] * (1 + backward + (shape.head_chunk > 0))
    held = memory.phases[PHASE_OF_UPDATES[network]]
    held_by = held["critic"] if network == "critic" else held["parameters"] + held.get("moments", 0)
    state = 2 * held_by * updates
    gradients = held["gradients"] // (3 if microbatches > 1 else 2)
    bytes_ = state + 2 * parts * (gradients + (2 + again) * weights) + (3 + again) * traffic + 2 * logits
    sent = _gathers(shape, (2 + again) * parts, fsdp, weights) + _sums(shape, (4 + again) * parts, load, tensor)
    sent += _exchanges(shape, 2 * parts, again * parts, load, mesh)
    if not shape.lora.rank:
        sent += _gathers(shape, parts, fsdp, weights, "reduce-scatter")
    if data > 1:
        size = int(2 * gradients * (data - 1) / data)
        sent += (Collective("all-reduce", size, data, parts, False, "gradients"),)
    model = (1 + backward) * (sum(forward) + attention)
    moments = held["critic"] - memory.phases["update"]["critic"] if network == "critic" else held.get("moments", 0)
    host = 2 * moments * updates * options.offload
    return Work(flops, attention * 4.5, bytes_, sent, parts, model, host=host)  # our backward kernels: 7 products for 2


def _rollout(setup: Setup) -> dict[str, Work]:
    sampling, mesh = sampling_config(setup), setup.sampling_mesh
    shape = decoded(setup.policy, mesh)
    shards, tensor = mesh.shape["data"] * mesh.shape["fsdp"], mesh.shape["tensor"]
    item, rollout = jnp.dtype(shape.dtype).itemsize, setup.config.rollout
    prompt, response = sampling.prompt_length, sampling.max_response_length
    batches = -(-rollout.prompts // sampling.batch_size)
    prompts = -(-sampling.batch_size // shards)
    rows = prompts * sampling.group_size
    steps = batches * response
    if sampling.slots:  # all slots are busy, and each holds its prompt
        rows = sampling.slots // shards
        steps = math.ceil(rollout.prompts * rollout.group_rows / sampling.slots) * response
    params, head = matmul_params(shape) / tensor, shape.vocab_size * shape.width / tensor
    weights = (params + head) * item
    tokens = batches * prompts * prompt
    pairs = batches * prompts * visible_pairs(shape, prompt, 0)
    prefill = Work(
        flops=2 * params * tokens,
        attention=4 * shape.num_layers * shape.num_heads * shape.head_dim * pairs / tensor,
        bytes=batches * weights + 2 * shape.num_layers * forward_bytes(shape, Load(1, tokens, 1), tensor, "tpu"),
        collectives=_sums(shape, 2 * batches, Load(prompts, prompt, 1), tensor),
        steps=batches,
    )
    shared = rows if sampling.slots else prompts
    cache = cache_bytes(shape, shared, prompt, tensor) + cache_bytes(shape, rows, response, tensor) / 2
    logits = 8 * 4 * rows * shape.vocab_size / tensor
    seen = 4 * shape.num_layers * shape.num_heads * shape.head_dim * rows * (prompt + response / 2) / tensor
    flops = steps * (2 * (params + head) * rows + seen)
    decode = Work(
        flops=flops,
        attention=0,
        bytes=steps * (weights + cache + logits),
        collectives=tuple(replace(x, decoding=True) for x in _sums(shape, 2 * steps, Load(rows, 1, 1), tensor)),
        steps=steps,
        model_flops=flops,
        floor=steps * (weights + cache),
    )
    prefill = replace(prefill, model_flops=prefill.flops + prefill.attention)
    return {"prefill": prefill, "decode": decode}


def _move(setup: Setup, memory: Memory) -> Work:
    """Parameters to the sampler's layout: each device receives what it lacks."""
    kinds = memory.phases["move"]
    copy, held, parameters = kinds["sampler"], kinds["copy"], kinds.get("parameters", 0)
    devices = weight_shards(setup.mesh)
    lacks = max(0, copy - held * (not setup.config.rollout.devices))
    sent = (Collective("all-gather", lacks, max(devices, 2), 1, False, "parameters"),) if lacks else ()
    return Work(0, 0, parameters + 2 * held + copy, sent)


def _gathers(config: PolicyConfig, times: int, fsdp: int, weights: float, kind: str = "all-gather"):
    """All weights, layer by layer and head, gathered over `fsdp` and `context`."""
    if fsdp == 1:
        return ()
    each = int(weights * (fsdp - 1) / fsdp / (config.num_layers + 1))
    return (Collective(kind, each, fsdp, times * (config.num_layers + 1), False, "weights"),)


def _sums(config: PolicyConfig, times: int, load: Load, tensor: int):
    """Outputs of attention and MLP, summed over `tensor` in each layer."""
    if tensor == 1:
        return ()
    size = load.rows * load.length * config.width * jnp.dtype(config.dtype).itemsize
    sent = int(2 * size * (tensor - 1) / tensor)
    return (Collective("all-reduce", sent, tensor, times * config.num_layers, False, "activations"),)


def _exchanges(config: PolicyConfig, whole: int, again: int, load: Load, mesh: AnyMesh):
    """Parts of rows exchanged for heads over `context`: inputs and output of attention, and inputs alone `again`."""
    context, tensor = mesh.shape["context"], mesh.shape["tensor"]
    if context == 1:
        return ()
    kv = math.lcm(config.num_kv_heads, context * tensor)  # at least one for each device
    head = (
        load.rows * load.length * config.head_dim * jnp.dtype(config.dtype).itemsize * (context - 1) / context / tensor
    )
    inputs, output = int(head * (config.num_heads + 2 * kv)), int(head * config.num_heads)
    counts = (inputs + output, whole), (inputs, again)
    return tuple(
        Collective("all-to-all", size, context, times * config.num_layers, False, "heads")
        for size, times in counts
        if times
    )


def _adapters(config: PolicyConfig) -> int:
    """Numbers in the adapters."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes_and_axes(config)[0].get(ADAPTERS, {})))
