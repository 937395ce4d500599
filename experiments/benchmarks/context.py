"""Attention of rows that devices share, compiled for TPUs without a TPU: tokens for heads, or all keys everywhere.

    python -m experiments.benchmarks.context --tokens 32768 --devices 4 8

Forward and backward of one layer's attention, with JAX's splash attention, whose queries may be a part of a row. In
`heads` the devices exchange their parts of the rows for heads and back, as training with the mesh axis `context`
does; in `keys` each gathers all keys and values and attends to them with its own queries. The table has what a device
sends, by the collectives of the compiled program, its temporary memory, and the pairs of query and key that the device
with most of them computes.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_jax.training.hlo import collectives

from .. import slices

TOPOLOGIES = {2: "v5p:2x2x1", 4: "v5p:2x2x1", 8: "v5p:2x2x2"}
LENGTH, HEADS = PartitionSpec("context", None, None), PartitionSpec(None, "context", None)  # of [time, heads, dim]


def attention(query, keys, values, block: int):
    """Causal attention of the last queries of a row."""
    (queries, heads, _), time = query.shape, keys.shape[0]
    mask = masks.CausalMask((queries, time), time - queries)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    sizes = splash.BlockSizes(**{f"block_{name}": block for name in names})
    attend = splash.make_splash_mha(
        masks.MultiHeadMask([mask] * heads), block_sizes=sizes, head_shards=1, q_seq_shards=1
    )
    output = attend(*(x.swapaxes(0, 1) for x in (query, keys, values)))
    return output.swapaxes(0, 1)


def exchanged(how: str, block: int, *arrays: jax.Array) -> jax.Array:
    """Attention of arrays that are sharded along their tokens."""
    if how == "heads":
        whole = jax.shard_map(lambda *x: attention(*x, block), in_specs=(HEADS,) * 3, out_specs=HEADS, check_vma=False)(
            *arrays
        )
        return jax.lax.with_sharding_constraint(whole, LENGTH)

    def own(query, *held):
        return attention(query, *(jax.lax.all_gather(x, "context", tiled=True) for x in held), block)

    return jax.shard_map(own, in_specs=(LENGTH,) * 3, out_specs=LENGTH, check_vma=False)(*arrays)


def compiled(how: str, devices: int, tokens: int, heads: int, kv: int, dim: int, block: int) -> jax.stages.Compiled:
    """The output, and the gradients of queries, keys and values."""
    chips = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGIES[devices]).devices
    mesh = Mesh(np.array(chips[:devices]), ("context",))
    shapes = [(tokens, count, dim) for count in (heads, kv, kv)]
    arrays = [jax.ShapeDtypeStruct(x, jnp.bfloat16, sharding=NamedSharding(mesh, LENGTH)) for x in shapes]

    def layer(gradient, *arrays):
        output, backward = jax.vjp(lambda *x: exchanged(how, block, *x), *arrays)
        return output, *backward(gradient)

    with jax.set_mesh(mesh):
        return jax.jit(layer, out_shardings=NamedSharding(mesh, LENGTH)).lower(arrays[0], *arrays).compile()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--devices", type=int, nargs="+", default=[4, 8], choices=TOPOLOGIES)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv", type=int, default=8, help="key/value heads")
    parser.add_argument("--dim", type=int, default=128, help="size of a head")
    parser.add_argument("--block", type=int, default=512, help="queries and keys in a block of the kernels")
    args = parser.parse_args()
    slices.set_environment()
    print("| devices | exchange | sent, MiB | temporaries, MiB | pairs / mean |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for devices in args.devices:
        for how in ("heads", "keys"):
            program = compiled(how, devices, args.tokens, args.heads, args.kv, args.dim, args.block)
            sent = sum(x.bytes * x.times for x in collectives(program.as_text(), devices)) / 2**20
            memory = program.memory_analysis().temp_size_in_bytes / 2**20
            most = 1.0 if how == "heads" else 2 - 1 / devices  # of a causal row, the last device has the longest part
            print(f"| {devices} | {how} | {sent:.1f} | {memory:.1f} | {most:.2f} |")


if __name__ == "__main__":
    main()
