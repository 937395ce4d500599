"""The memory of a run by arithmetic: bytes of every kind by hand, and the two lines at its start."""

import dataclasses
import re

import jax
import pytest

from rlvr_jax import parallel, policy
from rlvr_jax.config import TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.optimizer import OptimizerConfig
from rlvr_jax.parallel import MeshConfig
from rlvr_jax.parallel.chips import CHIPS, abstract, host_memory, memory_of
from rlvr_jax.training.plan import Memory, amount, lines, memory_of_run
from rlvr_jax.training.setup import make_setup
from rlvr_jax.training.start import param_shapes
from rlvr_jax.verifiers.judge import JudgeConfig
from tests.training.test_loop import TINY, changed

WIDE = changed(
    TINY,
    policy={"width": 256, "num_heads": 4, "num_kv_heads": 2, "head_dim": 64, "mlp_width": 512, "vocab_size": 1000},
    rollout={"prompts": 16},
)


def setup_of(config, devices=4, chip="v5p", run="rl"):
    return make_setup(config, problems=False, run=run, devices=abstract(CHIPS[chip], devices))


def size_of(config):
    shapes = jax.eval_shape(lambda: policy.init(config, jax.random.key(0)))
    return sum(x.size for x in jax.tree.leaves(shapes))


def test_parameters_moments_and_reference_are_divided_over_fsdp_and_the_reference_is_there_only_if_needed():
    setup = setup_of(changed(WIDE, mesh={"data": 1, "fsdp": -1}))
    count = size_of(setup.policy)
    held = memory_of_run(setup).phases["update"]
    assert held["parameters"] == held["reference"] == 4 * count // 4
    assert 0 <= held["moments"] - 2 * held["parameters"] < 100  # and counts of updates
    assert held["gradients"] == 2 * held["parameters"]
    plain = memory_of_run(setup_of(changed(WIDE, algorithm={"kl_coef": 0.0, "reference": "none"})))
    assert "reference" not in plain.phases["update"]
    assert "scoring" not in plain.phases
    assert plain.phases["update"]["parameters"] == 4 * count


def test_adapters_have_the_moments_and_the_base_is_the_reference():
    setup = setup_of(changed(WIDE, policy={"lora": policy.LoraConfig(rank=2)}))
    held = memory_of_run(setup).phases["update"]
    adapters = parallel.bytes_on_device(policy.trainable(param_shapes(setup)))
    assert 0 <= held["moments"] - 2 * adapters < 100
    assert held["gradients"] == 2 * adapters
    assert "reference" not in held


def test_a_warm_start_has_neither_sampler_nor_reference():
    memory = memory_of_run(make_setup(TINY, run="sft"))
    assert memory.phases.keys() == {"update"}
    assert not {"sampler", "reference"} & memory.phases["update"].keys()


def test_preferences_have_forward_passes_before_and_beside_their_updates():
    config = changed(WIDE, preferences={"batch_size": 16, "optimizer": OptimizerConfig(offload=True)})
    setup = setup_of(config, run="preferences")
    phases = memory_of_run(setup).phases
    assert phases.keys() == {"update", "scoring", "evaluation"}
    assert all(sum(phases["update"].values()) > sum(phases[name].values()) for name in ("scoring", "evaluation"))
    assert "moments" not in lines(memory_of_run(setup), setup)[0].split(";")[0]  # they are in the host's memory
    without = changed(config, preferences={"loss": "simpo", "heldout_share": 0.0})
    assert memory_of_run(setup_of(without, run="preferences")).phases.keys() == {"update"}


def test_devices_that_only_sample_hold_no_training_state():
    config = changed(WIDE, rollout={"devices": 2})
    phases = memory_of_run(setup_of(config)).phases
    assert "sampler" not in phases["update"]
    assert not {"parameters", "moments", "reference"} & phases["rollout"].keys()


def test_a_judge_in_this_process_is_whole_on_one_device_with_its_cache():
    judges = {"j": JudgeConfig(model="policy", max_tokens=5, in_flight=3), "other": JudgeConfig(model="absent")}
    config = dataclasses.replace(TINY, judges=judges, reward=(("j", 1.0),), init_from="runs/absent")
    setup = make_setup(changed(config, mesh={"data": 1, "fsdp": 2}), devices=jax.devices()[:2])
    phases, shape = memory_of_run(setup).phases, setup.policy
    assert phases["update"]["judges"] == 4 * size_of(shape)
    assert phases["judging"]["judges"] == phases["judging"]["copy"] == 4 * size_of(shape)
    cache = shape.num_layers * 2 * shape.num_kv_heads * shape.head_dim * 4
    assert phases["judging"]["KV cache"] == 3 * cache * (4 + 6 + 5 - 1)
    remote = {"j": JudgeConfig(model="x", endpoint="http://localhost:1/v1")}
    assert "judging" not in memory_of_run(make_setup(dataclasses.replace(config, judges=remote))).phases
    decides = {"modsum": TaskConfig(verifier="judge", verifier_options={"judge": "other"})}
    with pytest.raises(ConfigError, match=r"config\.judges\.other: .*absent"):
        memory_of_run(make_setup(dataclasses.replace(config, tasks=decides), problems=False))


def test_microbatches_save_activations_and_smaller_batches_save_cache():
    large = changed(WIDE, rollout={"prompts": 64, "max_prompt_length": 400, "max_response_length": 600})
    large = changed(large, policy={"max_length": 1000, "head_chunk": 64, "remat": "full"})
    parts = changed(large, optimizer={"microbatches": 8})
    before, after = (memory_of_run(setup_of(config)).phases["update"] for config in (large, parts))
    assert 6 < before["activations"] / after["activations"] <= 8
    assert after["parameters"] == before["parameters"]


@pytest.mark.parametrize("run", ["rl", "sft"])
def test_a_run_says_in_two_lines_what_it_holds_and_whether_it_fits(run):
    setup = make_setup(TINY, run=run)
    memory = memory_of_run(setup)
    first, second = lines(memory, setup)
    assert "\n" not in first + second
    assert all(name in first for name in ("8 x cpu", "KiB", "parameters", "moments", "update"))
    assert ("reference" in first, "rollout" in first) == (run == "rl", run == "rl")
    assert second.startswith("estimated peak memory: ")
    assert f" of {amount(memory.capacity)} per device" in second
    assert [amount(x) for x in (512, 18 * 2**20, 23.54 * 2**30)] == ["0.5 KiB", "18 MiB", "23.5 GiB"]
    assert memory.capacity == host_memory() // 8


def test_the_second_line_names_what_was_chosen_to_save_memory():
    policy_ = dataclasses.replace(TINY.policy, num_layers=64, width=1024, mlp_width=4096, vocab_size=300)
    setup = setup_of(changed(dataclasses.replace(TINY, policy=policy_), rollout={"prompts": 1024}))
    assert "policy.remat = 'full'" in lines(memory_of_run(setup), setup)[1]
    setup = setup_of(changed(dataclasses.replace(TINY, policy=policy_), policy={"remat": "full"}))
    assert "policy.remat" not in lines(memory_of_run(setup), setup)[1]


def test_what_does_not_fit_is_a_warning_and_parameters_that_do_not_fit_end_the_run():
    setup = setup_of(WIDE)
    memory = memory_of_run(setup)
    state = sum(memory.phases["update"][kind] for kind in ("parameters", "moments"))
    warning = lines(dataclasses.replace(memory, capacity=state + 1), setup)[1]
    assert warning.startswith("warning")
    assert "rlvr compile" in warning
    with pytest.raises(ConfigError, match=r"config\.mesh\.fsdp.*config\.policy\.lora\.rank"):
        lines(dataclasses.replace(memory, capacity=state - 1), setup)


def test_a_device_of_unknown_memory_is_no_reason_to_stop():
    setup = setup_of(WIDE)
    memory = dataclasses.replace(memory_of_run(setup), capacity=None)
    assert memory.spare is None
    assert "unknown" in lines(memory, setup)[1]


def test_the_peak_is_the_phase_that_holds_most():
    memory = Memory({"update": {"a": 3, "b": 4}, "rollout": {"a": 3, "c": 5}}, "", 10)
    assert memory.peak == ("rollout", 8)
    assert memory.spare == 2


@pytest.mark.parametrize(("chip", "gib"), [("v5e", 15.75), ("v5p", 95.74), ("v6e", 31.25), ("tpu7x", 94.75)])
def test_tpus_have_the_memory_that_their_compiler_allots(chip, gib):
    assert memory_of(abstract(CHIPS[chip], 1)[0]) == int(gib * 2**30)


def test_devices_that_share_rows_share_activations_and_parameters():
    alone, shared = (
        memory_of_run(setup_of(changed(WIDE, mesh={"data": 1} | x))).phases["update"]
        for x in ({"fsdp": 4}, {"fsdp": 2, "context": 2})
    )
    assert shared["parameters"] == alone["parameters"]
    assert shared["activations"] == alone["activations"]  # twice as many rows, each in two parts


def test_gpus_have_the_share_of_memory_that_jax_takes(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    assert memory_of(abstract(CHIPS["h100"], 1)[0]) == 60 * 10**9
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert memory_of(abstract(CHIPS["h100"], 1)[0]) == 72 * 10**9


def test_the_mesh_may_be_larger_than_this_machine():
    setup = setup_of(changed(WIDE, mesh={"data": -1, "fsdp": 16, "tensor": 2}, rollout={"prompts": 256}), devices=256)
    assert dict(setup.mesh.shape) == {"data": 8, "fsdp": 16, "context": 1, "tensor": 2}
    assert re.match(r"memory per device \(256 x TPU v5\)", lines(memory_of_run(setup), setup)[0])
    with pytest.raises(ConfigError, match=r"config\.mesh.*fsdp=16"):
        setup_of(dataclasses.replace(WIDE, mesh=MeshConfig(-1, 16, 1)), devices=24)
