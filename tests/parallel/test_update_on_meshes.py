"""On eight devices, every mesh gives the loss and the update of one device, and nothing is whole where it may be split.

Adam's first step is the sign of the gradient where that is large beside eps, and signs of tiny elements are rounding.
So the comparison runs Adam with an eps of about the gradients' own size, which makes its step a smooth function of
them, and tolerances are relative to the largest element of an array.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax import policy
from rlvr_jax.config import from_dict
from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.optimizer import make_optimizer
from rlvr_jax.learner.step import new_state, state_shardings
from rlvr_jax.parallel import AXES, MeshConfig, batch_sharding, make_mesh, param_shardings, replicated, use_mesh
from rlvr_jax.training.functions import make_jitted_update, make_loss, make_score, make_update
from rlvr_jax.training.setup import Setup, make_setup
from tests.close import assert_close

TOLERANCE = 1e-5
CONFIG = {
    "tasks": {"modsum": {"options": {"digits": 2}}},
    "policy": {"num_layers": 2, "width": 16, "num_heads": 8, "num_kv_heads": 2, "head_dim": 2, "mlp_width": 24},
    "rollout": {"prompts": 8, "group_size": 2, "max_prompt_length": 4, "max_response_length": 5},
    "algorithm": {"kl_coef": 0.1, "reference": "initial"},
    "optimizer": {"learning_rate": 0.1, "eps": 0.01, "clip_norm": 0.1, "weight_decay": 0.1},
}
# The mesh axis that each axis of a parameter is split along, if that divides it: the vocabulary has 14 tokens and there
# are 2 key/value heads, which not every `tensor` divides.
LAYOUT = {
    "embed": ("tensor", "fsdp"),
    "norm": ("fsdp",),
    "layers/attention_norm": (None, "fsdp"),
    "layers/mlp_norm": (None, "fsdp"),
    "layers/attention/q": (None, "fsdp", "tensor", None),
    "layers/attention/k": (None, "fsdp", "tensor", None),
    "layers/attention/v": (None, "fsdp", "tensor", None),
    "layers/attention/out": (None, "tensor", None, "fsdp"),
    "layers/mlp/gate": (None, "fsdp", "tensor"),
    "layers/mlp/up": (None, "fsdp", "tensor"),
    "layers/mlp/down": (None, "tensor", "fsdp"),
}
# Several axes at once, since how an array is split along an axis depends on no other, and more devices along "tensor"
# than there are heads; with the number of microbatches.
MESHES = {(1, 1, 1, 8): 1, (2, 2, 1, 2): 4, (1, 2, 2, 2): 1}


def make_batch():
    rng = np.random.default_rng(0)
    prompts = [prompt for prompt in [rng.integers(1, 14, rng.integers(1, 5)) for _ in range(8)] for _ in range(2)]
    responses = [rng.integers(1, 14, rng.integers(0, 6)) for _ in range(16)]
    batch = layout(prompts, responses, 4, 5)
    noise = lambda: rng.normal(size=batch.action_mask.shape).astype(np.float32)  # noqa: E731
    logprob = np.float32(-np.log(14))
    near = lambda: logprob + np.float32(0.2) * noise()  # noqa: E731
    return batch.with_columns(advantages=noise() * batch.action_mask, behaviour=near(), reference=near())


def prepared(setup: Setup, microbatches: int):
    """The arguments of an update, the policy's state on the mesh and on the host, and its shardings."""
    optimizer = make_optimizer(setup.config.optimizer, 10)
    arguments = setup, {"policy": optimizer}, make_loss(setup), microbatches
    state = new_state(optimizer, init(setup.policy))
    shardings = state_shardings(jax.eval_shape(lambda: state), setup.param_shardings, replicated(setup.mesh))
    before = jax.device_get(state)
    state = jax.jit(lambda state: jax.tree.map(jnp.copy, state), out_shardings=shardings)(state)
    return arguments, state, before, shardings


def run_update(setup: Setup, microbatches: int = 1):
    """The state before, the state after, the metrics, and the shardings that the update was compiled for."""
    arguments, state, before, shardings = prepared(setup, microbatches)
    with use_mesh(setup.mesh):
        batch = jax.device_put(make_batch(), batch_sharding(setup.mesh))
        compiled = make_jitted_update(*arguments).lower({"policy": state}, batch).compile()
        after, metrics = compiled({"policy": state}, batch)
    return {
        "given": state,
        "before": before,
        "after": after["policy"],
        "metrics": jax.device_get(metrics),
        "batch": compiled.input_shardings[0][1],
        "shardings": shardings,
    }


@functools.cache
def init(shape):
    """Parameters with norm scales that are not all 1; large enough for the layers to matter."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: np.float32((x.ndim < 3) * 0.5 + 0.3 * rng.normal(size=x.shape)),
        jax.eval_shape(functools.partial(policy.init, shape), jax.random.key(0)),
    )


@pytest.fixture(scope="module")
def one_device():
    setup = make_setup(from_dict(CONFIG))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    shapes = jax.eval_shape(lambda: init(setup.policy))
    shardings = param_shardings(mesh, policy.logical_axes(setup.policy), shapes)
    return run_update(dataclasses.replace(setup, mesh=mesh, param_shardings=shardings))


@pytest.fixture(scope="module", params=MESHES, ids=lambda shape: "x".join(map(str, shape)))
def mesh_shape(request):
    return request.param


@pytest.fixture(scope="module")
def on_mesh(mesh_shape):
    setup = make_setup(from_dict(CONFIG | {"mesh": dict(zip(AXES, mesh_shape, strict=True))}))
    return run_update(setup, MESHES[mesh_shape])


def assert_same_update(run, reference):
    assert run["metrics"].keys() == reference["metrics"].keys()
    for name, value in reference["metrics"].items():
        # A correlation is made of means of squares that cancel, here a hundred times as large as what remains.
        assert_close(run["metrics"][name], value, terms=10 if name.endswith("correlation") else 0.1, name=name)
    reference_changes, changes = (
        jax.tree.map(lambda x, y: np.asarray(x, np.float64) - y, each["after"].params, each["before"].params)
        for each in (reference, run)
    )
    moments = [each["after"].opt_state for each in (run, reference)]
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path((changes, moments[0])),
        jax.tree.leaves((reference_changes, moments[1])),
        strict=True,
    ):
        name, y = jax.tree_util.keystr(path), np.asarray(y)
        largest = np.max(np.abs(y))
        assert largest > 0, f"{name} did not move"
        np.testing.assert_allclose(np.asarray(x), y, rtol=0, atol=TOLERANCE * largest, err_msg=name)


def test_the_loss_and_the_update_are_those_of_one_device(on_mesh, one_device):
    assert float(one_device["metrics"]["train/grad_norm"]) > 0.1, "the clip of the global norm is to be tested, too"
    assert_same_update(on_mesh, one_device)


def test_parameters_and_moments_are_split_over_fsdp_and_tensor_before_and_after(on_mesh, mesh_shape):
    sizes = {"fsdp": mesh_shape[1] * mesh_shape[2], "tensor": mesh_shape[3], None: 1}
    after = on_mesh["after"]
    moments = after.opt_state[1][0]
    for tree in (after.params, moments.mu, moments.nu):
        leaves = {
            jax.tree_util.keystr(path, simple=True, separator="/"): x
            for path, x in jax.tree_util.tree_leaves_with_path(tree)
        }
        assert leaves.keys() == LAYOUT.keys()
        for name, x in leaves.items():
            factors = [sizes[axis] for axis in LAYOUT[name]]
            expected = tuple(n // f if n % f == 0 else n for n, f in zip(x.shape, factors, strict=True))
            assert {shard.data.shape for shard in x.addressable_shards} == {expected}, name
    same = jax.tree.map(lambda x, y: x.sharding.is_equivalent_to(y, x.ndim), after, on_mesh["shardings"])
    assert all(jax.tree.leaves(same)), "the next update would be compiled anew"


def test_the_batch_is_split_over_data_and_fsdp(on_mesh, mesh_shape):
    rows = 16 // (mesh_shape[0] * mesh_shape[1])
    for sharding, array in zip(jax.tree.leaves(on_mesh["batch"]), jax.tree.leaves(make_batch()), strict=True):
        assert sharding.shard_shape(array.shape) == (rows, *array.shape[1:])


def test_the_memory_of_the_given_state_is_reused(on_mesh):
    assert all(x.is_deleted() for x in jax.tree.leaves((on_mesh["given"].params, on_mesh["given"].opt_state)))


def test_rows_that_share_a_prompt_on_a_mesh_give_the_update_and_logprobs_of_separate_ones(one_device):
    packing = {"packing": "prefix_tree", "packing_multiple": 4}
    mesh = {"data": 1, "fsdp": 2, "context": 2, "tensor": 2}
    separate, packed = (make_setup(from_dict(CONFIG | {"mesh": mesh, "training": x})) for x in ({}, packing))
    arguments, state, before, _ = prepared(packed, microbatches=2)
    update, batch = make_update(*arguments), make_batch()
    with use_mesh(packed.mesh):
        logprobs = [make_score(setup)(state.params, batch) * batch.action_mask for setup in (packed, separate)]
        after, metrics = update({"policy": state}, batch)
    assert_close(*logprobs)
    assert_same_update({"before": before, "after": after["policy"], "metrics": jax.device_get(metrics)}, one_device)
