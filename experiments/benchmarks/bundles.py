"""A static profile of the attention kernels on TPUs, without a TPU: instruction bundles of the hot regions.

    python -m experiments.benchmarks.bundles --chips v5e tpu7x
    python -m experiments.benchmarks.bundles --chips v6e --kernels ours ours_backward --block-q 512

The real TPU compiler (`pip install 'rlvr_jax[tpu-compiler]'`, or TPU_LIBRARY_PATH=.venv/tpu/libtpu/libtpu.so after
`make test`) runs on this machine and writes its final VLIW program, one bundle per cycle if nothing stalls. The table
lists the bundles of each innermost region that uses the matrix unit, per 512 queries x 512 keys of one head. Memory
latency is not modelled: this ranks kernels that do the same work and measures no time. `ours` has two regions: blocks
without a mask and blocks with one.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CHIPS = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2", "tpu7x": "tpu7x:2x2x1"}
# Kernel -> name of its program in the compiler's output.
KERNELS = {
    "ours": "flash_forward",
    "ours_backward": ".*(?:flash_query_gradient|flash_key_value_gradients).*",
    "splash": "splash_mha_fwd.*",
    "splash_wide": "splash_mha_fwd.*",
    "splash_backward": ".*splash_mha_dkv.*",
}
TIME, HEADS, KV, DIM = 4096, 8, 2, 128


def compile_kernel(chip: str, kernel: str, block_q: int, block_k: int, tree: bool) -> None:
    """Compiles one kernel for one chip; LIBTPU_INIT_ARGS names the folder of the compiler's output."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    device = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[chip]).devices[0]
    mesh = Mesh(np.array([device]), ("x",))

    def array(*shape, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

    attend, arguments = _ours(array, block_q, block_k, tree) if "ours" in kernel else _splash(array, kernel)

    def gradients(*arguments):
        return jax.grad(lambda *x: attend(*x, *arguments[3:]).astype(jnp.float32).sum(), (0, 1, 2))(*arguments[:3])

    with jax.set_mesh(mesh):
        jax.jit(gradients if "backward" in kernel else attend).lower(*arguments).compile()


def _ours(array, block_q, block_k, tree):
    import jax
    import jax.numpy as jnp

    from rlvr_jax.kernels.flash import flash_attention
    from rlvr_jax.kernels.schedule import make_schedule

    ids = [jax.ShapeDtypeStruct((1, TIME), jnp.int32)] * (3 if tree else 2)
    schedule = jax.eval_shape(lambda *ids: make_schedule(*ids, block_q=block_q, block_k=block_k), *ids)
    schedule = jax.tree.map(lambda x: array(*x.shape, dtype=x.dtype), schedule)
    vectors = [array(1, TIME, heads, DIM) for heads in (HEADS, KV, KV)]
    return flash_attention, [*vectors, schedule]


def _splash(array, kernel):
    import jax
    import jax.numpy as jnp
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    q, kv, compute = (1024, 1024, 512) if kernel == "splash_wide" else (512, 512, 512)
    sizes = splash.BlockSizes(
        block_q=q,
        block_kv=kv,
        block_kv_compute=compute,
        block_q_dkv=512,
        block_kv_dkv=512,
        block_kv_dkv_compute=512,
        use_fused_bwd_kernel=True,
    )
    mask = masks.MultiHeadMask([masks.CausalMask((TIME, TIME))] * HEADS)
    attend = splash.make_splash_mha(mask, block_sizes=sizes, head_shards=1, q_seq_shards=1)
    vectors = [array(heads, TIME, DIM) for heads in (HEADS, KV, KV)]
    segments = array(TIME, dtype=jnp.int32)
    # The mask's tables are constants of the call: they are few.
    return lambda q, k, v, s: attend(q, k, v, splash.SegmentIds(s, s)), [*vectors, jax.tree.map(lambda x: x, segments)]


def hot_regions(folder: Path, name: str) -> dict[str, list[tuple[int, dict[str, float]]]]:
    """Innermost regions with matrix products, of each kernel whose name matches.

    Returns:
      Kernel -> (bundles, share of the slots of each unit that are used) of each region, in the program's order.
    """
    found = {}
    for path in sorted(folder.glob("*final_bundles.txt")):
        match = re.fullmatch(rf"\d+-({name})(\.\d+)?-\d+-final_bundles\.txt", path.name)
        if match is None:
            continue
        (usage_path,) = folder.glob(path.name.rsplit("-", 2)[0] + "-*-final_hlo-static-per-bundle-utilization.txt")
        lines = usage_path.read_text().splitlines()
        units = lines[1].split(", ")
        capacity = [int(x) for x in lines[2].split()]
        usage = [[int(x) for x in line.split()] for line in lines[4:] if line.strip()]
        open_at, spans = {}, []
        for line in path.read_text().splitlines():
            address = re.match(r"\s*(0x[0-9a-f]+|0)\s.*:", line)
            if address is None:
                continue
            at = int(address[1], 16)
            for what, number in re.findall(r"(Start|End) region (\d+)", line):
                if what == "Start":
                    open_at[number] = at
                elif number in open_at:
                    spans.append((open_at.pop(number), at + 1))
        busy = [(a, b) for a, b in spans if sum(row[0] for row in usage[a:b])]
        inner = [(a, b) for a, b in busy if not any(a <= c and d <= b and (c, d) != (a, b) for c, d in busy)]
        found[match[1]] = [
            (b - a, {u: sum(r[i] for r in usage[a:b]) / (b - a) / capacity[i] for i, u in enumerate(units)})
            for a, b in sorted(set(inner))
        ]
    return found


def profile(chip: str, kernel: str, block_q: int = 256, block_k: int = 512, tree: bool = True) -> dict:
    """`hot_regions` of a kernel, compiled in a process of its own: the compiler reads its settings when it is loaded.

    Raises:
      RuntimeError: it did not compile.
    """
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--xla_jf_dump_to={folder}", "--xla_jf_dump_llo_text=true"]
        flags += ["--xla_jf_dump_llo_pass_label_regex=.*final.*"]  # the text of all 70 passes takes as long as they do
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_ENABLE_COMPILATION_CACHE": "false",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "TPU_SKIP_MDS_QUERY": "1",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_ACCELERATOR_TYPE": "v5litepod-8",
            "LIBTPU_INIT_ARGS": " ".join(flags),
        }
        command = [sys.executable, "-m", __spec__.name, "--compile", chip, kernel]
        command += [f"--block-q={block_q}", f"--block-k={block_k}"] + ["--no-tree"] * (not tree)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"compiling {kernel} for {chip} failed:\n{done.stderr[-3000:]}")
        return hot_regions(Path(folder), KERNELS[kernel])


def main(arguments: list[str] | None = None) -> None:
    prog = "python -m experiments.benchmarks.bundles"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.split("\n")[0])
    parser.add_argument("--chips", nargs="+", choices=CHIPS, default=list(CHIPS))
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--block-q", type=int, default=256, help="queries in a block of ours")
    parser.add_argument("--block-k", type=int, default=512, help="keys in a block of ours")
    parser.add_argument("--no-tree", action="store_true", help="ours without parents")
    parser.add_argument("--compile", nargs=2, metavar=("CHIP", "KERNEL"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.compile:
        compile_kernel(*options.compile, options.block_q, options.block_k, not options.no_tree)
        return
    pairs = {"ours": HEADS // KV * options.block_q * options.block_k, "splash": 512 * 512, "splash_wide": 1024 * 1024}
    print(f"{'chip':6} {'kernel':28} {'bundles':>8} {'per 512x512':>12}  used slots")
    for chip in options.chips:
        for kernel in options.kernels:
            work = pairs.get(kernel.removesuffix("_backward"), 512 * 512)
            for name, regions in profile(chip, kernel, options.block_q, options.block_k, not options.no_tree).items():
                for bundles, used in regions:
                    shares = " ".join(f"{unit} {share:.0%}" for unit, share in used.items() if share >= 0.05)
                    equivalent = bundles * 512 * 512 / work
                    print(f"{chip:6} {kernel + ' ' + name:28.28} {bundles:8} {equivalent:12.0f}  {shares}", flush=True)


if __name__ == "__main__":
    main()
