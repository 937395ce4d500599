"""Benchmarks of single components, each compared with a baseline in the same run; see `speed`."""

import datetime
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from rlvr_jax import policy
from rlvr_jax.hf.export import save_pretrained
from rlvr_jax.hf.pretrained import loading_speed
from rlvr_jax.kernels.decode import decode_attention
from rlvr_jax.kernels.platform import target_platform
from rlvr_jax.kernels.quantized import quantized
from rlvr_jax.kernels.schedule import make_schedule
from rlvr_jax.kernels.training import training_attention
from rlvr_jax.policy import PolicyConfig

PROMPT, RESPONSE, GROUP = 1024, 128, 16  # of the shared-prefix case: tokens, tokens, samples


def side_by_side(calls: dict[str, Callable[[], object]], runs: int, burst: int = 1) -> dict[str, float]:
    """Median seconds of each call; the calls alternate, so that other load slows them alike.

    A `burst` is so many calls at once: an accelerator runs them back to back, and the host's share of each is hidden.
    """
    times = {name: [] for name in calls}
    for run in range(runs + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready([call() for _ in range(burst)])
            if run > 0:  # the first compiles
                times[name].append((time.perf_counter() - start) / burst)
    return {name: float(np.median(x)) for name, x in times.items()}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def on_accelerator() -> bool:
    return target_platform() != "cpu"


def burst() -> int:
    """Calls of a kernel that are timed together."""
    return 10 if on_accelerator() else 1


def bandwidth() -> float:
    """Bytes/s, read and written, of adding 1 to an array in place: the best of ten."""
    block, add = jnp.ones(2**28 if on_accelerator() else 2**26), jax.jit(lambda x: x + 1, donate_argnums=0)
    times = []
    for _ in range(11):
        start = time.perf_counter()
        for _ in range(burst()):
            block = add(block)
        jax.block_until_ready(block)
        times.append((time.perf_counter() - start) / burst())
    return 2 * block.nbytes / min(times)


# Training attention.


def dense(length: int) -> tuple[np.ndarray, ...]:
    """Positions of a row with one sequence."""
    return (np.arange(length, dtype=np.int32)[None],)


def packed(length: int) -> tuple[np.ndarray, ...]:
    """Positions and segment ids of a row of eight sequences of random lengths."""
    rng = np.random.default_rng(0)
    cuts = np.sort(rng.choice(np.arange(1, length), size=7, replace=False))
    lengths = np.diff([0, *cuts, length])
    positions = np.concatenate([np.arange(n) for n in lengths])
    return positions[None].astype(np.int32), np.repeat(np.arange(8) + 1, lengths)[None].astype(np.int32)


def tree(prompt: int, response: int, group: int) -> tuple[np.ndarray, ...]:
    """Positions, segment ids and parents of a prompt followed by its responses."""
    lengths = [prompt] + [response] * group
    segments = np.repeat(np.arange(group + 1) + 1, lengths)
    positions = np.concatenate([np.arange(n) + (prompt if i else 0) for i, n in enumerate(lengths)])
    return tuple(x[None].astype(np.int32) for x in (positions, segments, np.where(segments > 1, 1, 0)))


def attention_calls(ids, implementation: str, rows: int, heads: int, kv: int, dim: int, dtype):
    """(forward, forward and backward) over `rows` copies of the ids, as functions without arguments."""
    length = ids[0].shape[1]
    ids = [jnp.asarray(np.repeat(x, rows, axis=0)) for x in ids]
    rng = np.random.default_rng(0)
    vectors = [jnp.asarray(rng.normal(size=(rows, length, h, dim)), dtype) for h in (heads, kv, kv)]
    schedule = jax.jit(partial(make_schedule, group=heads // kv))(*ids)  # once for all layers
    attend = partial(training_attention, scale=dim**-0.5, implementation=implementation)
    forward = jax.jit(attend)

    @jax.jit
    def backward(schedule, *vectors):
        return jax.grad(lambda *x: attend(*x, schedule).astype(jnp.float32).sum(), (0, 1, 2))(*vectors)

    return lambda: forward(*vectors, schedule), lambda: backward(schedule, *vectors)


def attention(runs: int) -> str:
    """Our attention compared with a library's kernel (on CPU: with plain JAX that keeps all scores in memory)."""
    if on_accelerator():
        library = "cudnn" if target_platform() == "gpu" else "splash"
        ours, heads, kv, dim, dtype, lengths = "pallas", 32, 8, 128, jnp.bfloat16, (4096, 16384)
    else:
        ours, library, heads, kv, dim, dtype, lengths = "xla", "reference", 4, 2, 64, jnp.float32, (512, 2048)
    row = {"heads": heads, "kv": kv, "dim": dim, "dtype": dtype}
    # Name, our ids, the library's ids and its number of rows. The library supports whole rows only (cuDNN), or at least
    # no shared prefix: its prompt is repeated for every response.
    cases = [(f"dense causal, {n}", dense(n), dense(n), 1) for n in lengths]
    spans, longest = packed(lengths[-1]), dense(lengths[-1])
    cases.append((f"packed, 8 in {lengths[-1]}", spans, longest if library == "cudnn" else spans, 1))
    separate = dense(PROMPT + RESPONSE)
    cases.append((f"prompt {PROMPT}, {GROUP} x {RESPONSE}", tree(PROMPT, RESPONSE, GROUP), separate, GROUP))
    lines = []
    for name, ids, their_ids, their_rows in cases:
        both = *attention_calls(ids, ours, 1, **row), *attention_calls(their_ids, library, their_rows, **row)
        calls = dict(zip(("ours", "ours back", "theirs", "theirs back"), both, strict=True))
        seconds = side_by_side(calls, runs, burst())
        computed = their_ids[0].shape[1] * their_rows / ids[0].shape[1]
        lines.append(
            [
                name,
                f"{1e3 * seconds['ours']:.1f}",
                f"{seconds['theirs'] / seconds['ours']:.2f}",
                f"{1e3 * seconds['ours back']:.1f}",
                f"{seconds['theirs back'] / seconds['ours back']:.2f}",
                f"{computed:.2f}",
            ]
        )
    head = (
        "tokens",
        f"forward, {ours}, ms",
        f"speed-up over {library}",
        "forward and backward, ms",
        f"speed-up over {library}",
        f"tokens, {library} / ours",
    )
    title = f"{heads} query heads, {kv} key/value heads of size {dim}, {jnp.dtype(dtype).name}\n\n"
    return title + table(head, lines)


# Decode attention.


def decode(runs: int) -> str:
    """One step of decode attention: time, and share of the memory bandwidth."""
    if on_accelerator():
        ours, batch, heads, kv, dim, dtype, prompt, length = "pallas", 256, 32, 8, 128, jnp.bfloat16, PROMPT, 4096
    else:
        ours, batch, heads, kv, dim, dtype, prompt, length = "xla", 64, 4, 2, 64, jnp.float32, PROMPT, 2048
    rng = np.random.default_rng(0)
    query = jnp.asarray(rng.normal(size=(batch, heads, dim)), dtype)

    def segment(rows, columns, lengths):
        keys = jax.random.normal(jax.random.key(columns), (rows, kv, dim, columns), dtype)
        return keys, keys.swapaxes(2, 3) * 1, jnp.asarray(np.arange(columns) < lengths[:, None])

    def in_8_bits(segment):
        keys, values, mask = segment
        (keys, of_keys), (values, of_values) = quantized(keys.swapaxes(2, 3)), quantized(values)
        return keys.swapaxes(2, 3), values, mask, of_keys, of_values

    full = np.full(batch, length)
    cases = {
        f"{batch} rows, all {length} long": ((batch, length, full),),
        f"{batch} rows, 1 to {length} long": ((batch, length, rng.integers(1, length + 1, batch)),),
        f"groups of {GROUP}, prompt {prompt}, own {RESPONSE}": (
            (batch // GROUP, prompt, np.full(batch, prompt)),
            (batch, RESPONSE, np.full(batch, RESPONSE)),
        ),
    }
    lines = []
    for name, sizes in cases.items():
        segments = tuple(segment(*size) for size in sizes)
        per_column = 2 * kv * dim * jnp.dtype(dtype).itemsize
        needed = per_column * sum(int(lengths[:: batch // rows].sum()) for rows, _, lengths in sizes)
        alone = per_column * sum(int(lengths.sum()) for *_, lengths in sizes)
        step = {x: jax.jit(partial(decode_attention, implementation=x)) for x in (ours, "reference")}
        calls = {x: partial(call, query, segments) for x, call in step.items()}
        calls["8 bits"] = partial(step[ours], query, tuple(map(in_8_bits, segments)))
        before, seconds, after = bandwidth(), side_by_side(calls, runs, burst()), bandwidth()
        rate = max(before, after)
        lines.append(
            [
                name,
                f"{needed / 2**20:.0f}",
                f"{alone / needed:.2f}",
                f"{1e3 * seconds[ours]:.2f}",
                f"{needed / seconds[ours] / rate:.0%}",
                f"{1e3 * seconds['reference']:.2f}",
                f"{needed / seconds['reference'] / rate:.0%}",
                f"{1e3 * seconds['8 bits']:.2f}",
            ]
        )
    head = (
        "cache",
        "MiB to read",
        "unshared / shared",
        f"{ours}, ms",
        "of bandwidth",
        "reference, ms",
        "of bandwidth",
        f"{ours}, cache in 8 bits, ms",
    )
    title = f"{heads} query heads, {kv} key/value heads of size {dim}, {jnp.dtype(dtype).name}\n\n"
    return title + table(head, lines)


# Head: tokens, width, vocabulary, and tokens of the chunks, of which 0 stands for all.

HEAD = {"accelerator": (16384, 4096, 151936, (0, 2048, 512)), "cpu": (2048, 256, 16384, (0, 512, 128))}


def head(runs: int) -> str:
    """Log-probs and entropies with their gradients: all logits at once, and in chunks."""
    tokens, width, vocab, chunks = HEAD["accelerator" if on_accelerator() else "cpu"]
    config = PolicyConfig(vocab_size=vocab, width=width, dtype="bfloat16" if on_accelerator() else "float32")
    weights = 0.02 * jax.random.normal(jax.random.key(0), (vocab, width))
    hidden = jax.random.normal(jax.random.key(1), (1, tokens, width), config.dtype)
    targets = jax.random.randint(jax.random.key(2), (1, tokens), 0, vocab)

    def loss(size, table, hidden):
        outputs = policy.logprobs_and_entropy(replace(config, head_chunk=size), {"embed": table}, hidden, targets)
        return jnp.sum(outputs[0] + 0.01 * outputs[1])

    compiled, lines = {}, []
    for size in chunks:
        gradients = jax.jit(jax.grad(partial(loss, size), (0, 1)))
        compiled[str(size)] = gradients.lower(weights, hidden).compile()
    seconds = side_by_side({name: partial(call, weights, hidden) for name, call in compiled.items()}, runs)
    for name, call in compiled.items():
        memory = call.memory_analysis().temp_size_in_bytes
        label = "all at once" if name == "0" else f"{name} tokens"
        ratio = seconds["0"] / seconds[name]
        lines.append([label, f"{memory / 2**20:.0f}", f"{1e3 * seconds[name]:.0f}", f"{ratio:.2f}"])
    title = f"{tokens} tokens, width {width}, vocabulary {vocab}, {config.dtype}; forward and backward\n\n"
    return title + table(("logits", "temporary memory, MiB", "ms", "speed-up over all at once"), lines)


# Checkpoints.


def load(runs: int) -> str:
    """Loading a checkpoint of half a gigabyte onto the devices, compared with reading its files."""
    config = PolicyConfig(
        vocab_size=32_000, num_layers=12, width=768, num_heads=12, num_kv_heads=4, head_dim=64, mlp_width=3072
    )
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("bfloat16", "float32"):
            shape = replace(config, dtype=dtype, param_dtype=dtype, num_layers=24 if dtype == "bfloat16" else 12)
            checkpoint = Path(folder) / dtype
            save_pretrained(checkpoint, shape, policy.init(shape, jax.random.key(0)), dtype=dtype)
            for cold in (False, True):
                speeds = [loading_speed(checkpoint, shape, cold=cold) for _ in range(runs)]
                read, taken = np.median([(s.read_seconds, s.load_seconds) for s in speeds], axis=0)
                ratio = float(np.median([s.load_seconds / s.read_seconds for s in speeds]))
                name = f"{dtype}, {'from disk' if cold else 'cached files'}"
                lines.append([name, f"{speeds[0].size / 1e6:.0f}", f"{read:.2f}", f"{taken:.2f}", f"{ratio:.2f}"])
    return table(("checkpoint", "MB", "reading, s", "loading, s", "loading / reading"), lines)


def picture(text: str, path: Path) -> None:
    """Draws the ratios of the attention table as a bar chart."""
    head, _, *rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    places, thickness = np.arange(len(rows)), 0.27
    for i, (column, label) in enumerate([(2, "forward"), (4, "forward and backward"), (5, "tokens computed")]):
        values = [float(row[column]) for row in rows]
        bars = axes.barh(places + (i - 1) * thickness, values, thickness, label=label)
        axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, [row[0] for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(head[2])
    axes.set_title("\n".join(text.splitlines()[:2]), fontsize=9)
    axes.legend()
    figure.savefig(path, dpi=120)


PARTS = {"attention": attention, "decode": decode, "head": head, "load": load}


def report(part: Callable[[int], str], runs: int) -> str:
    """The table of a benchmark with its machine and date."""
    device = jax.devices()[0]
    machine = device.device_kind if on_accelerator() else f"{os.cpu_count()} {platform.machine()} cores"
    today = datetime.date.today().isoformat()
    return f"{machine}, {today}, jax {jax.__version__}, medians of {runs} runs\n{part(runs)}"
