"""Speed of sampling and of the training step, and their share of the machine's measured limits.

    rlvr benchmark rollout --size=tiny
    rlvr benchmark train --size=small --runs=5
    rlvr benchmark train --packing=prefix_tree
    rlvr benchmark rollout --lengths=longtail

Workload: 16 prompts of 32 random tokens, 8 samples of each with exactly 128 new tokens, at temperature 1 without
filters; training is one Adam update over those 128 sequences in 4 microbatches, without a KL term. Its rows are the
samples or, with `--packing=prefix_tree`, prompts with all their samples. Compilation is reported separately. The
machine's limits are measured in the same run: the rate of float32 products of 2048 x 2048 matrices, and of copying
256 MiB.

With `--lengths=longtail`: 64 prompts, 8 samples of each over 32 slots. Lengths follow an exponential distribution with
a mean of a quarter of the maximum, 128, and are passed to the sampler as budgets. Two variants alternate: free slots
are refilled at once, or only when all are free.

Single components, each as a Markdown table, with small sizes on CPU:

    rlvr benchmark attention   training attention: dense, packed and with a shared prompt, compared with
                               another implementation (cuDNN, splash, on CPU all scores at once)
    rlvr benchmark decode      decode attention, and its share of the memory bandwidth
    rlvr benchmark head        log-probs and entropies, all logits at once and in chunks
    rlvr benchmark prefix      16 samples of one long prompt in sampling and training, the prompt
                               shared or repeated
    rlvr benchmark load        loading a checkpoint, compared with reading its files

Runs of 10 steps whose episodes call tools that take up to 2 s, synchronous and with episodes that go on over updates:

    rlvr benchmark latency     time of a step, and the share of it in which the device waits for tools

Compare times only within a table: its calls alternate.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_jax import policy
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.losses import policy_gradient
from rlvr_jax.learner.optimizer import OptimizerConfig, make_optimizer
from rlvr_jax.learner.packing import pack
from rlvr_jax.learner.step import new_state, train_step
from rlvr_jax.parallel.host import keep_freed_memory
from rlvr_jax.policy import PolicyConfig
from rlvr_jax.rollout.sampler import SamplingConfig

from ..command import name_of
from .latency import latency
from .parts import PARTS, picture, report
from .prefix import prefix
from .rollouts import requests, rollout

PROMPTS, GROUP, PROMPT_LENGTH, RESPONSE_LENGTH, MICROBATCHES = 16, 8, 32, 128, 4
SAMPLES, LENGTH = PROMPTS * GROUP, PROMPT_LENGTH + RESPONSE_LENGTH
SLOTS, CHUNK, LONGTAIL_PROMPTS = 32, 8, 64

_TINY = PolicyConfig(
    vocab_size=512, num_layers=4, width=256, num_heads=4, num_kv_heads=2, head_dim=64, mlp_width=1024, qkv_bias=True
)
SIZES = {
    "tiny": _TINY,
    "small": dataclasses.replace(
        _TINY, vocab_size=4096, num_layers=12, width=512, num_heads=8, num_kv_heads=4, mlp_width=1536
    ),
}


def forward_flops(config: PolicyConfig) -> float:
    """Floating-point operations of one forward pass over all sequences: matrix products, causal attention, and the
    head on responses only. The prompt counts for every sample, even if it is computed once per group."""
    attention = config.width * config.head_dim * 2 * (config.num_heads + config.num_kv_heads)
    weights = config.num_layers * (attention + 3 * config.width * config.mlp_width)
    scores = config.num_layers * config.num_heads * config.head_dim * LENGTH / 2  # each of the two products, per token
    head = config.vocab_size * config.width
    return 2 * SAMPLES * (LENGTH * (weights + 2 * scores) + RESPONSE_LENGTH * head)


def decode_bytes(config: PolicyConfig) -> float:
    """Bytes that the decoding loop must read: all weights and the KV cache, once per token."""
    itemsize = jnp.dtype(config.dtype).itemsize
    shapes = jax.eval_shape(partial(policy.init, config), jax.random.key(0))
    weights = sum(x.size for x in jax.tree.leaves(shapes)) * itemsize
    per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize
    steps = np.arange(1, RESPONSE_LENGTH)
    return float(np.sum(weights + per_token * (PROMPTS * PROMPT_LENGTH + SAMPLES * steps)))


def seconds(call: Callable[[], object], runs: int) -> list[float]:
    """Wall time of each of `runs` calls."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return times


def machine_limits() -> tuple[float, float]:
    """Peak measured rate of float32 matrix products (FLOP/s) and of copying memory (bytes/s, read and written)."""
    matrix, block = jnp.ones((2048, 2048)), jnp.ones(64 << 20)
    product, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1)
    jax.block_until_ready((product(matrix), copy(block)))
    matmul = 2 * 2048**3 / min(seconds(lambda: product(matrix), 10))
    return matmul, 2 * block.nbytes / min(seconds(lambda: copy(block), 10))


def rollout_call(config: PolicyConfig) -> Callable[[], object]:
    """One rollout, as a function without arguments."""
    sampling = SamplingConfig(PROMPT_LENGTH, RESPONSE_LENGTH, GROUP, batch_size=PROMPTS)
    params = jax.jit(partial(policy.init, config))(jax.random.key(0))
    prompts = np.asarray(jax.random.randint(jax.random.key(1), (PROMPTS, PROMPT_LENGTH), 0, config.vocab_size))
    return rollout(config, sampling, params, [requests(prompts, GROUP, [RESPONSE_LENGTH] * SAMPLES)])


def longtail_budgets() -> np.ndarray:
    """Lengths of the long-tail workload: quantiles of the exponential distribution, in random order."""
    count = LONGTAIL_PROMPTS * GROUP
    quantiles = -np.log1p(-(np.arange(count) + 0.5) / count) * RESPONSE_LENGTH / 4
    lengths = np.clip(np.ceil(quantiles), 1, RESPONSE_LENGTH)
    return np.random.default_rng(0).permutation(lengths).astype(np.int32)


def longtail(config: PolicyConfig, runs: int) -> None:
    """Measures continuous batching on responses of unequal length and prints the table."""
    params = jax.jit(partial(policy.init, config))(jax.random.key(0))
    sampling = SamplingConfig(PROMPT_LENGTH, RESPONSE_LENGTH, GROUP, slots=SLOTS, chunk=CHUNK)
    rng, budgets = np.random.default_rng(1), longtail_budgets()
    prompts = rng.integers(0, config.vocab_size, (LONGTAIL_PROMPTS, PROMPT_LENGTH)).astype(np.int32)
    work = requests(prompts, GROUP, budgets)
    fillings = [work[first : first + SLOTS] for first in range(0, len(work), SLOTS)]
    calls = {
        "refilled": rollout(config, sampling, params, [work]),
        "not refilled": rollout(config, sampling, params, fillings),
    }
    stats, times = {}, {name: [] for name in calls}
    for run in range(runs + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            stats[name] = call()
            if run > 0:  # the first compiles
                times[name].append(time.perf_counter() - start)
    tokens = int(budgets.sum())
    print(f"{len(budgets)} samples over {SLOTS} slots, lengths 1 to {budgets.max()}, mean {budgets.mean():.1f}")
    print(f"{tokens} tokens; medians of {runs} runs on {jax.devices()[0].device_kind}\n")
    print(f"{'slots':14}{'seconds':>9}{'tokens/s':>10}{'steps':>8}{'occupancy':>11}{'ms/step':>9}")
    medians = {name: statistics.median(x) for name, x in times.items()}
    for name, seconds in medians.items():
        steps, occupancy = stats[name].steps, stats[name].occupancy
        print(f"{name:14}{seconds:9.2f}{tokens / seconds:10.0f}{steps:8}{occupancy:11.0%}{1e3 * seconds / steps:9.2f}")
    ratios = sorted(b / a for a, b in zip(*times.values(), strict=True))
    print(
        f"\nrefilling is {statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f} in pairs)"
    )


def train_call(config: PolicyConfig, packing: str) -> Callable[[], object]:
    """One training step, as a function without arguments; each call starts from the state of the last one."""
    optimizer = make_optimizer(OptimizerConfig(), num_updates=1000)
    init = jax.jit(lambda key: {"policy": new_state(optimizer, policy.init(config, key))})
    states = [init(jax.random.key(0))]
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, config.vocab_size, (PROMPTS, PROMPT_LENGTH)).repeat(GROUP, axis=0).tolist()
    responses = rng.integers(0, config.vocab_size, (SAMPLES, RESPONSE_LENGTH)).tolist()
    batch = layout(prompts, responses, PROMPT_LENGTH, RESPONSE_LENGTH)
    shape = batch.action_mask.shape
    batch = batch.with_columns(advantages=np.float32(rng.normal(size=shape)), behaviour=np.zeros(shape, np.float32))
    loss = policy_gradient(config, AlgorithmConfig(), temperature=1.0, max_length=RESPONSE_LENGTH)
    compiled = jax.jit(partial(train_step, loss, {"policy": optimizer}, MICROBATCHES), donate_argnums=0)

    def call() -> object:
        states[0], metrics = compiled(states[0], pack(batch, GROUP) if packing == "prefix_tree" else batch)
        return metrics

    return call


def main() -> None:
    parts = PARTS | {"prefix": prefix, "latency": latency}
    parser = argparse.ArgumentParser(
        prog=name_of(main),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("rollout", "train", *parts))
    parser.add_argument("--size", choices=tuple(SIZES), default="tiny")
    parser.add_argument(
        "--lengths", choices=("equal", "longtail"), default="equal", help="of the responses in `rollout`"
    )
    parser.add_argument(
        "--packing", choices=("none", "prefix_tree"), default="none", help="rows of `train`, see `rlvr keys training`"
    )
    parser.add_argument("--runs", type=int, default=5, help="timed runs; the median is reported (default: 5)")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw the table of `attention` into this file")
    args = parser.parse_args()
    if args.runs < 1:
        sys.exit("error: --runs must be at least 1")
    if args.picture and args.what != "attention":
        sys.exit(f"error: --picture is of `attention`, not of `{args.what}`")
    if args.lengths == "longtail" and args.what != "rollout":
        sys.exit(f"error: --lengths=longtail is a case of `rollout`, not of `{args.what}`")
    if args.packing != "none" and args.what != "train":
        sys.exit(f"error: --packing={args.packing} is a case of `train`, not of `{args.what}`")
    keep_freed_memory()

    if args.what in parts:
        text = report(parts[args.what], args.runs)
        print(f"{name_of(main)} {args.what} --runs={args.runs}\n{text}")
        if args.picture:
            picture(text, args.picture)
        return
    config = SIZES[args.size]
    if args.lengths == "longtail":
        print(f"rollout, size {args.size}, lengths of a long tail: ", end="")
        longtail(config, args.runs)
        return
    if args.what == "rollout":
        call, work, tokens = rollout_call(config), forward_flops(config), SAMPLES * RESPONSE_LENGTH
    else:
        call, work, tokens = train_call(config, args.packing), 3 * forward_flops(config), SAMPLES * LENGTH
    (first,) = seconds(call, 1)
    before, times, after = machine_limits(), seconds(call, args.runs), machine_limits()
    matmul, bandwidth = (max(pair) for pair in zip(before, after, strict=True))
    median = statistics.median(times)

    device = jax.devices()[0]
    rows = f", packing {args.packing}" if args.what == "train" else ""
    print(f"{args.what}{rows}, size {args.size}: {work / 1e9:.0f} GFLOP, {tokens} tokens; on {device.device_kind}")
    print(f"first call, with compilation: {first:.1f} s; {args.runs} more: {min(times):.3f} to {max(times):.3f} s")
    print(f"matrix product {matmul / 1e9:.0f} GFLOP/s, memory {bandwidth / 1e9:.1f} GB/s: measured in this run")
    share = work / matmul / median
    print(f"median {median:.3f} s, {tokens / median:.0f} tokens/s, {share:.0%} of the matrix product's rate")
    if args.what == "rollout":
        share = decode_bytes(config) / bandwidth / median
        print(f"reading weights and KV cache at this machine's memory bandwidth takes {share:.0%} of the time")


if __name__ == "__main__":
    main()
