"""Collectives of compiled programs: what is read from their text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_jax.training.hlo import Collective, collectives

# As the TPU compiler writes them: a loop over 3 layers, in which one all-gather runs beside two fusions, and a loop
# that ends after at most 100 tokens.
TPU = """HloModule jit_step, is_scheduled=true

%beside.1 (p0: bf16[2,64]) -> bf16[2,256] {
  %p0 = bf16[2,64]{1,0} parameter(0)
  ROOT %all-gather.1 = bf16[2,256]{1,0:T(2,128)} all-gather(%p0), channel_id=9, replica_groups=mesh['a'=2,'b'=4] {'b'}
}

%beside.2 (p1: bf16[2,64]) -> bf16[2,256] {
  %p1 = bf16[2,64]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[2,256]{1,0:S(1)} all-gather(%p1), channel_id=9, replica_groups=mesh['a'=2,'b'=4] {'b'}
}

%all-reduce-scatter.1 (p2: bf16[128,256]) -> bf16[128,64] {
  %p2 = bf16[128,256]{0,1:T(8,128)(2,1)S(1)} parameter(0)
  %all-reduce.7 = bf16[128,256]{0,1:T(8,128)(2,1)} all-reduce(%p2), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}
  ROOT %slice = bf16[128,64]{0,1} dynamic-slice(%all-reduce.7), dynamic_slice_sizes={128,64}
}

%body (b: (s32[], bf16[2,64])) -> (s32[], bf16[2,64]) {
  %b = (s32[], bf16[2,64]) parameter(0)
  %fusion.1 = bf16[2,256]{1,0} fusion(%b), kind=kCustom, calls=%beside.1
  %fusion.2 = bf16[2,256]{1,0} fusion(%b), kind=kCustom, calls=%beside.2
  ROOT %fusion.3 = bf16[128,64]{0,1} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.1
}

%condition (c: (s32[], bf16[2,64])) -> pred[] {
  %constant.3 = s32[]{:T(128)} constant(3)
  %c = (s32[], bf16[2,64]) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %constant.3), direction=LT
}

%until (d: (s32[], bf16[2,64])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(1)
  %constant.100 = s32[]{:T(128)} constant(100)
  %d = (s32[], bf16[2,64]) parameter(0)
  %t = s32[]{:T(128)} get-tuple-element(%d), index=0
  %next = s32[]{:T(128)} add(%t, %constant.1)
  %all-reduce.9 = u32[]{:T(128)} all-reduce(%t), channel_id=51, replica_groups=mesh['a'=8] {'a'}, to_apply=%or
  %below = pred[]{:T(512)} compare(%next, %constant.100), direction=LT
  ROOT %and = pred[]{:T(512)} and(%below, %t)
}

%token (e: (s32[], bf16[2,64])) -> (s32[], bf16[2,64]) {
  %e = (s32[], bf16[2,64]) parameter(0)
  ROOT %sum.8 = (f32[4], f32[12]) all-reduce(%e), channel_id=3, replica_groups=[4,2]<=[8],metadata={op_name="sum"}
}

ENTRY %main (p: (s32[], bf16[2,64])) -> bf16[2,64] {
  %p = (s32[], bf16[2,64]) parameter(0)
  %while.1 = (s32[], bf16[2,64]) while(%p), condition=%condition, body=%body
  %while.2 = (s32[], bf16[2,64]) while(%while.1), condition=%until, body=%token
  ROOT %permuted = bf16[2,64]{1,0} collective-permute(%while.2), channel_id=4, source_target_pairs={{0,1},{1,0}}
}
"""


def test_loops_groups_and_collectives_beside_fusions_of_a_tpu_program():
    found = {x.kind + "*" * x.decoding: x for x in collectives(TPU, 8) if x.bytes > 8}
    assert found == {
        "all-gather": Collective("all-gather", 2 * 256 * 2 * 3 // 4, 4, 3, False, ""),
        "reduce-scatter": Collective("reduce-scatter", 128 * 256 * 2 * 3 // 4, 4, 3, False, ""),
        "all-reduce*": Collective("all-reduce", 16 * 4, 2, 100, True, "sum"),
        "collective-permute": Collective("collective-permute", 2 * 64 * 2, 2, 1, False, ""),
    }
    (ends,) = (x for x in collectives(TPU, 8) if x.devices == 8)
    assert (ends.bytes, ends.times, ends.decoding) == (7, 100, True)


def test_collectives_of_one_channel_and_what_follows_an_attribute_of_several_lines_are_counted():
    program = """ENTRY %main (p: bf16[8,64]) -> bf16[8,64] {
  %p = bf16[8,64]{1,0} parameter(0)
  %keys = bf16[32,64]{1,0} all-gather(%p), channel_id=1, replica_groups={{0,1,2,3}}
  %values = bf16[32,64]{1,0} all-gather(%p), channel_id=1, replica_groups={{0,1,2,3}}
  %kernel = bf16[32,64]{1,0} custom-call(%keys, %values), frontend_attributes={
"sizes":{"block": 512
}}, metadata={op_name="kernel"}
  ROOT %sums = bf16[8,64]{1,0} reduce-scatter(%kernel), channel_id=1, replica_groups={{0,1,2,3}}
}
"""
    size = 32 * 64 * 2 * 3 // 4
    found = [(x.kind, x.bytes) for x in collectives(program, 4)]
    assert found == [("all-gather", size)] * 2 + [("reduce-scatter", size)]


@pytest.mark.parametrize("steps", [1, 5])
def test_a_program_of_this_machine_is_read_as_it_was_written(steps):
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("rows", "columns"))

    def body(x):
        def step(_, x):
            return jax.lax.psum(x, "columns") * 0.5

        return jax.lax.all_gather(jax.lax.fori_loop(0, steps, step, x), "rows", tiled=True)

    sharded = jax.shard_map(body, mesh=mesh, in_specs=PartitionSpec("rows"), out_specs=PartitionSpec(), check_vma=False)
    x = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("rows")))
    found = {x.kind: x for x in collectives(jax.jit(sharded).lower(x).compile().as_text(), 8)}
    sums, gather = found["all-reduce"], found["all-gather"]
    assert (sums.bytes, sums.devices, sums.times) == (2 * 8 * 32 * 4 * 3 // 4, 4, steps)
    assert (gather.bytes, gather.devices, gather.times) == (16 * 32 * 4 // 2, 2, 1)


def test_one_device_has_no_collectives():
    assert collectives(jax.jit(lambda x: x + 1).lower(1.0).compile().as_text(), 1) == []
