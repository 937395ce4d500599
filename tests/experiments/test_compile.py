"""Memory, work and time of runs on devices that are not here: the command, and its arithmetic against the compiler."""

import dataclasses
import json
import re
import shlex
import sys

import pytest

from experiments.compile_report import table
from experiments.slices import RUNS, offline, places
from rlvr_jax.errors import ConfigError
from rlvr_jax.training.analysis import estimated
from rlvr_jax.training.fit import advice, changed, fastest, smaller, try_setup
from rlvr_jax.training.plan import memory_of_run
from rlvr_jax.training.setup import make_setup
from tests.experiments.runs import ROOT, run
from tests.test_configs import load

SMALL = {
    "policy.num_layers": 1,
    "policy.width": 256,
    "policy.num_heads": 2,
    "policy.num_kv_heads": 2,
    "policy.head_dim": 64,
    "policy.mlp_width": 512,
    "policy.vocab_size": 1024,
    "policy.head_chunk": 512,
    "policy.tie_embeddings": False,
    "rollout.prompts": 16,
    "rollout.max_prompt_length": 128,
    "rollout.max_response_length": 128,
    "optimizer.microbatches": 4,
    "evaluation.problems": 8,
    "evaluation.pass_problems": 0,
}


def small(*overrides):
    return offline(load("gsm8k_llama32_1b", *[f"--config.{key}={value}" for key, value in SMALL.items()], *overrides))


@pytest.fixture(scope="module")
def compiled(no_cache):  # noqa: ARG001
    """A small policy, compiled for 16 v5p, and its estimate."""
    where = places("v5p:2x2x4", None, 0, compiles=True)
    setup = make_setup(small(), problems=False, devices=where.devices)
    return where.analysis(setup), estimated(setup, where.chip, where.torus)


def test_every_program_of_a_step_compiles_with_its_kernels_and_fits(compiled):
    made, _ = compiled
    assert {"update", "scoring", "move", "rollout", "evaluation"} <= made.compiled.keys()
    assert made.fits
    assert made.missing == {}


def test_parameters_moments_and_the_samplers_copy_are_what_the_compiler_sees(compiled):
    made, estimate = compiled
    held = estimate.memory.phases["update"]
    state = held["parameters"] + held["moments"] + held["batch"]
    assert state <= made.compiled["update"]["argument"] < 1.3 * state  # TPUs pad what is as small as here
    assert made.compiled["move"]["output"] == pytest.approx(held["sampler"], rel=0.05)
    assert made.compiled["rollout"]["argument"] == pytest.approx(held["sampler"], rel=0.05)
    assert 0 < made.compiled["update"]["flops"] < made.work["update"].flops  # of four microbatches it counts one


@pytest.mark.parametrize("phase", ["update", "scoring", "move", "rollout"])
def test_the_arithmetic_is_within_a_factor_of_two_of_the_compiled_memory(compiled, phase):
    made, estimate = (sum(x.memory.phases[phase].values()) for x in compiled)
    assert 0.5 < estimate / made < 2


def test_collectives_are_those_of_the_program_and_none_in_decoding_moves_parameters(compiled):
    made, _ = compiled
    kinds = {x.kind for x in made.work["update"].collectives}
    assert kinds >= {"all-gather"}
    weights = 2 * 256 * 512  # of one product
    assert all(x.decoding and x.bytes < weights / 100 for x in made.work["decode"].collectives)


def test_the_table_and_the_file_have_every_phase(compiled):
    made, _ = compiled
    text = "\n".join(table(made, "a title", compiled=True))
    assert all(name in text for name in ("update", "scoring", "move", "rollout", "prefill", "decode", "to spare"))
    assert "compiled" in text
    assert f"{made.utilization:.0%}" in text
    assert not re.search(r"takes 0\.00? |\(0\.00 ", text)  # small times have smaller units


def test_one_device_has_no_table_of_collectives():
    where = places(None, "h100", 1, compiles=False)
    lines = table(where.analysis(make_setup(small(), problems=False, devices=where.devices)), "a title", False)
    assert "no collectives" in lines
    assert not any(line.startswith("collectives") for line in lines)


def test_the_command_prints_an_estimate_and_writes_all_numbers(tmp_path):
    out = tmp_path / "plan.json"
    line = [sys.executable, "-m", "experiments.compile", "--config=tulu3_rlvr_8b", "--topology=v5p:2x2x4"]
    status, stdout, stderr = run([*line, "--estimate", f"--out={out}"])
    assert status == 0, stderr
    assert "tulu3_rlvr_8b on v5p:2x2x4" in stdout
    found = json.loads(out.read_text())
    assert found["fits"]
    assert found["capacity"] == int(95.74 * 2**30)
    assert found["phases"].keys() == {"move", "prefill", "decode", "scoring", "update"}
    assert found["seconds"] == pytest.approx(sum(x["seconds"]["total"] for x in found["phases"].values()))
    assert found["chip"]["source"].startswith("https://")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, "h101"), "h101.*a100, h100"),
        (("v9:2x2", None), "v9:2x2.*'v9'.*v5e, v5p, v6e, tpu7x.*cpu"),
        (("v5e:2x2x2", None), "v5e:2x2x2"),
        (("v5p:4x4", None), "v5p:4x4"),
        (("v5e:3x5", None), "v5e:3x5"),
        (("v5e:0x4", None), "v5e:0x4"),
    ],
)
def test_a_slice_that_does_not_exist_is_an_error_of_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as error:
        places(*arguments, 8, compiles=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mesh.fsdp=3", r"fsdp=3.*8"),
        ("mesh.tensor=3", r"tensor=3.*8"),
        ("mesh.rollout_tensor=3", r"rollout_tensor = 3"),
        ("optimizer.microbatches=7", r"microbatches = 7"),
    ],
)
def test_meshes_and_batches_that_do_not_divide_are_refused_as_in_a_run(override, message):
    where = places(None, "h100", 8, compiles=False)
    with pytest.raises(ConfigError, match=message):
        make_setup(small(f"--config.{override}"), problems=False, devices=where.devices)


def test_heads_that_tensor_parallelism_does_not_divide_are_refused():
    where = places("v5e:4x4", None, 0, compiles=False)
    with pytest.raises(ConfigError, match=r"num_heads = 2 .*tensor = 16"):
        make_setup(small("--config.mesh.fsdp=1", "--config.mesh.tensor=16"), problems=False, devices=where.devices)


def test_a_checkpoint_that_is_not_here_needs_the_configs_architecture():
    with pytest.raises(ConfigError, match=r"SmolLM2-135M-Instruct.*config\.policy"):
        offline(load("smollm2_135m_sums"))


@pytest.mark.parametrize(
    ("name", "key", "run", "topology"),
    [
        ("tulu3_rlvr_8b", "optimizer", "rl", "v5p:2x2x2"),
        ("tulu3_dpo_8b", "preferences.optimizer", "preferences", "v5e:4x8"),
    ],
)
def test_what_does_not_fit_gets_a_change_that_does(name, key, run, topology):
    config = offline(load(name, f"--config.{key}.microbatches=1"))
    where = places(topology, None, 0, compiles=False)
    before = where.analysis(make_setup(config, problems=False, run=run, devices=where.devices))
    assert not before.fits
    changes, after = advice(before, where.devices)
    assert changes
    assert after.fits


@pytest.mark.parametrize(
    ("name", "options", "run", "topology"),
    [
        # Sizes of few divisors, which are what is tried.
        ("gsm8k_qwen3_1p7b", ["--config.rollout.prompts=16", "--config.rollout.group_size=2"], "rl", "v5e:2x2"),
        ("tulu3_sft_8b", [], "sft", "v5p:2x2x1"),
    ],
)
def test_fit_finds_settings_that_fit_and_none_is_faster_among_those_it_ranks(name, options, run, topology):
    config = offline(load(name, *options))
    where = places(topology, None, 0, compiles=False)
    found = fastest(config, where.devices, where.chip, where.torus, run)
    assert found
    assert all(x.memory.spare >= 0.1 * x.memory.capacity - 1 for x in found)
    assert [x.seconds for x in found] == sorted(x.seconds for x in found)
    again = dataclasses.replace(found[0].setup.config)
    setup = make_setup(again, problems=False, run=run, devices=where.devices)
    assert where.analysis(setup).seconds == found[0].seconds


def test_fit_shares_rows_that_no_device_has_room_for():
    long = {"policy.max_length": 131072, "rollout.max_response_length": 130000}
    long |= {"rollout.prompts": 16, "rollout.group_size": 2}
    config = offline(load("gsm8k_qwen3_1p7b", *[f"--config.{key}={value}" for key, value in long.items()]))
    where = places("v5e:2x4", None, 0, compiles=False)
    found = fastest(config, where.devices, where.chip, where.torus)
    assert found
    assert all(x.setup.mesh.shape["context"] > 1 for x in found)


def test_offload_is_among_the_changes_that_save_memory_and_costs_its_transfers():
    config = offline(load("gsm8k_qwen3_1p7b"))
    where = places("v5e:2x4", None, 0, compiles=False)
    before = where.analysis(make_setup(config, problems=False, devices=where.devices))
    for key, phase in (("optimizer.offload", "rollout"), ("training.offload_reference", "rollout")):
        (change,) = [x for x in smaller(config, before.setup) if x.key == key]
        after = estimated(try_setup(changed(config, [change]), where.devices), where.chip, where.torus)
        assert after.totals[phase] < before.totals[phase], key
        assert after.seconds > before.seconds


@pytest.mark.parametrize(
    ("run", "overrides", "phases"),
    [
        ("preferences", {"preferences.loss": "kto", "preferences.batch_size": 16}, ["update", "scoring", "evaluation"]),
        ("sft", {"sft.updates_per_call": 4, "sft.batch_size": 16, "sft.packing": False}, ["update"]),
    ],
)
def test_the_programs_of_supervised_runs_compile_and_hold_what_is_estimated(run, overrides, phases):
    options = [f"--config.{key}={value}" for key, value in {**overrides, f"{run}.optimizer.microbatches": 2}.items()]
    name = {"sft": "tulu3_sft_8b", "preferences": "tulu3_dpo_8b"}[run]
    shape = [f"--config.{key}={value}" for key, value in SMALL.items() if not key.startswith("optimizer")]
    where = places("cpu", None, 0, compiles=True)
    setup = make_setup(offline(load(name, *shape, *options)), problems=False, run=run, devices=where.devices)
    made, estimate = where.analysis(setup), estimated(setup, None)
    assert list(made.compiled) == list(estimate.memory.phases) == phases
    held = estimate.memory.phases["update"]
    state = held["parameters"] + held["moments"]
    assert state < made.compiled["update"]["argument"] <= state + held["batch"]
    assert {x.kind for x in made.work["update"].collectives} >= {"all-gather"}
    text = "\n".join(table(made, "a title", compiled=True))
    assert all(phase in text for phase in phases)
    assert not {"sampling", "decode", "rollout"} & {*text.split()}


@pytest.mark.parametrize(
    ("config", "run"), [("tulu3_sft_8b", "sft"), ("tulu3_dpo_8b", "preferences"), ("tulu3_rm_8b", "preferences")]
)
def test_supervised_runs_fit_the_hardware_of_their_docstrings(config, run):
    stated = " ".join((ROOT / "configs" / f"{config}.py").read_text(encoding="utf-8").split())
    for where in (places(None, "h100", 8, compiles=False), places("v5p:2x2x4", None, 0, compiles=False)):
        memory = memory_of_run(make_setup(offline(load(config)), problems=False, run=run, devices=where.devices))
        assert memory.spare > 0
        assert f"{memory.peak[1] / 2**30:.1f} GiB" in stated


def documented() -> list[list[str]]:
    """The commands of the documentation."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "".join(page.read_text(encoding="utf-8").replace("\\\n", " ") for page in pages)
    return [shlex.split(line) for line in sorted(set(re.findall(r"rlvr compile (--config[^`\n|]*)", text)))]


@pytest.mark.parametrize("arguments", documented(), ids=" ".join)
def test_every_command_of_the_documentation_fits_by_estimate(arguments):
    flags = dict(x.removeprefix("--").split("=", 1) for x in arguments if not x.startswith("--config.") and "=" in x)
    overrides = [x for x in arguments if x.startswith("--config.")]
    config = offline(load(flags["config"], *overrides))
    where = places(flags.get("topology"), flags.get("gpu"), int(flags.get("devices", 8)), compiles=False)
    run = RUNS[flags.get("run", "train")]
    if "--fit" in arguments:
        assert fastest(config, where.devices, where.chip, where.torus, run)
    else:
        assert where.analysis(make_setup(config, problems=False, run=run, devices=where.devices)).fits
