"""The work of a step by arithmetic, against sums by hand, and its time on chips."""

import math

import pytest

from rlvr_jax.learner.supervised import SourceConfig
from rlvr_jax.parallel.chips import CHIPS, link_bandwidth, link_latency
from rlvr_jax.policy import LoraConfig, PolicyConfig
from rlvr_jax.training.hlo import Collective
from rlvr_jax.training.plan import memory_of_run
from rlvr_jax.training.roofline import Work, matmul_params, times, visible_pairs
from rlvr_jax.training.roofline import work as work_of
from tests.training.test_loop import changed
from tests.training.test_plan import WIDE, setup_of

SHAPE = PolicyConfig(num_layers=3, width=16, num_heads=4, num_kv_heads=2, head_dim=8, mlp_width=40)


def test_every_weight_of_the_layers_is_counted():
    assert matmul_params(SHAPE) == 3 * (16 * 4 * 8 + 2 * 16 * 2 * 8 + 4 * 8 * 16 + 3 * 16 * 40)


@pytest.mark.parametrize(("prompt", "response", "group"), [(10, 20, 1), (10, 20, 3), (30, 0, 1)])
def test_pairs_are_those_of_the_causal_mask(prompt, response, group):
    pairs = sum(i + 1 for i in range(prompt)) + group * sum(prompt + i + 1 for i in range(response))
    assert visible_pairs(SHAPE, prompt, response, group) == pytest.approx(pairs, rel=0.1)


def test_windows_bound_the_pairs_of_their_layers():
    windowed = PolicyConfig(num_layers=2, window_pattern=(4, 0))
    inside, whole = (sum(min(i + 1, n) for i in range(100)) for n in (4, 100))
    assert visible_pairs(windowed, 60, 40) == pytest.approx((inside + whole) / 2, rel=0.05)


def work(setup):
    return work_of(setup, memory_of_run(setup))


def plain(**changes):
    config = changed(WIDE, algorithm={"kl_coef": 0.0, "reference": "none"}, policy={"remat": "none", "head_chunk": 0})
    return changed(config, **changes)


def test_an_update_has_three_products_for_each_weight_and_rematerialisation_one_more():
    found = work(setup_of(plain(), devices=4))["update"]
    rows, shape = 16 * 4 // 4, WIDE.policy
    head = 6 * rows * 6 * 1000 * shape.width
    layers = 6 * rows * 10 * matmul_params(shape)
    attention = 3 * 4 * shape.num_heads * shape.head_dim * rows * visible_pairs(shape, 4, 6)
    assert found.flops == pytest.approx(head + layers)
    assert found.model_flops == pytest.approx(head + layers + attention)
    again = work(setup_of(plain(policy={"remat": "full"}), devices=4))["update"]
    down = shape.width * shape.mlp_width
    assert again.flops - found.flops == pytest.approx(layers / 3 * (1 - down / matmul_params(shape)))
    assert again.model_flops == found.model_flops
    adapters = work(setup_of(plain(policy={"lora": LoraConfig(rank=1)}), devices=4))["update"]
    assert 2 / 3 < adapters.flops / found.flops < 0.8


def test_devices_share_the_work_and_tensor_parallelism_adds_collectives():
    one, four = (work(setup_of(plain(), devices=n))["update"] for n in (1, 4))
    assert one.flops == pytest.approx(4 * four.flops)
    assert one.collectives == ()
    assert {x.kind for x in four.collectives} == {"all-reduce"}
    tensor = work(setup_of(plain(mesh={"tensor": 4}), devices=4))["update"]
    assert tensor.flops == pytest.approx(four.flops)
    (sums,) = tensor.collectives
    assert sums.bytes == 2 * (64 * 10 * 256 * 4) * 3 // 4
    sharded = work(setup_of(plain(mesh={"data": 1, "fsdp": 4}), devices=4))["update"]
    assert {x.kind for x in sharded.collectives} == {"all-gather", "reduce-scatter"}
    shared = work(setup_of(plain(mesh={"data": 2, "context": 2}), devices=4))["update"]
    assert (shared.flops, shared.attention) == (pytest.approx(four.flops), four.attention)
    (heads,) = (x for x in shared.collectives if x.kind == "all-to-all")
    # Forward and backward of a layer: queries and output of 4 heads, keys and values of 2, half of them sent.
    assert (heads.bytes, heads.times) == (32 * 5 * (2 * 4 + 2 * 2) * 64 * 4 // 2, 2)


def test_scoring_is_a_forward_pass_for_each_column():
    once = work(setup_of(plain(algorithm={"reference": "initial"})))
    twice = work(setup_of(plain(algorithm={"reference": "initial", "proximal": "recompute"})))
    assert "scoring" not in work(setup_of(plain()))
    assert twice["scoring"].flops == 2 * once["scoring"].flops
    assert once["scoring"].flops == pytest.approx(once["update"].flops / 3)


def test_supervised_runs_have_the_work_of_their_rows():
    config = plain(preferences={"batch_size": 16, "loss": "dpo"}, sft={"batch_size": 16})
    of = lambda run, **changes: work(setup_of(changed(config, **changes), run=run))  # noqa: E731
    layers, head = 6 * 4 * matmul_params(WIDE.policy), 6 * 4 * 1000 * WIDE.policy.width  # of 4 rows on a device
    pairs = of("preferences")  # prompts of 4 tokens once, with two completions of 6
    assert pairs["update"].flops == pytest.approx(16 * layers + 12 * head)
    assert pairs["scoring"].flops == pytest.approx(pairs["update"].flops / 3)
    singles = of("preferences", preferences={"loss": "kto"})  # and a forward pass for the baseline
    assert singles["update"].flops == pytest.approx(4 / 3 * pairs["update"].flops)
    reward = of("preferences", preferences={"loss": "bradley_terry", "packing": "none"})
    assert reward.keys() == {"update"}
    assert reward["update"].flops == pytest.approx(2 * 10 * layers + 2 * 6 * head / 1000)
    assert of("sft")["update"].flops == pytest.approx(10 * layers + 6 * head)
    assert of("sft", sft={"sources": {"a": SourceConfig("a")}})["update"].flops == pytest.approx(10 * (layers + head))


def test_what_lies_on_the_host_is_moved_on_top_of_the_work():
    there = work(setup_of(plain(algorithm={"reference": "initial"})))
    away = {"optimizer": {"offload": True}, "training": {"offload_reference": True}}
    setup = setup_of(plain(algorithm={"reference": "initial", "epochs": 2}, **away))
    here, held = work(setup), memory_of_run(setup).phases
    assert {name: part.host for name, part in there.items() if part.host} == {}
    assert here["scoring"].host == held["scoring"]["reference"] == 4 * held["update"]["parameters"] // 4
    assert here["update"].host == 2 * 2 * held["update"]["moments"]
    chip = CHIPS["h100"]
    with_moves, without = (times(x["scoring"], "scoring", chip, ()) for x in (here, there))
    assert with_moves.total - without.total == pytest.approx(here["scoring"].host / 64e9)


def test_a_decode_step_reads_the_weights_and_half_of_the_responses_cache_on_average():
    setup = setup_of(plain(), devices=1)
    found, shape = work(setup)["decode"], setup.policy
    token = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * 4
    weights = 4 * (matmul_params(shape) + 1000 * shape.width)
    assert found.steps == 6
    assert found.floor / 6 == weights + 16 * 4 * token + 64 * 6 * token / 2
    assert found.floor < found.bytes


def test_a_phase_takes_as_long_as_its_slowest_part_and_decoding_waits_for_collectives():
    chip = CHIPS["v5e"]
    sent = (Collective("all-gather", 10**9, 4, 2, False, ""),)
    made = Work(197e12, 197e12, 819e9 / 2, sent)
    found = times(made, "update", chip, (4, 4))
    assert (found.compute, found.memory) == (2.0, 0.5)
    assert found.interconnect == pytest.approx(2 * (1e9 / 50e9 + 3e-6))
    assert (found.total, found.limit) == (2.0, "compute")
    assert times(made, "decode", chip, (4, 4)).total == pytest.approx(2 + found.interconnect)
    both_ways = Work(0, 0, 0, (Collective("collective-permute", 10**9, 2, 2, False, ""),))
    assert times(both_ways, "update", chip, (4, 4)).interconnect == pytest.approx(1e9 / 50e9 + 1e-6)
    assert times(made, "update", CHIPS["v6e"], (4, 4)).compute == pytest.approx(197 / 918 * (1 + 1 / 0.39))


@pytest.mark.parametrize(
    ("chip", "torus", "devices", "links", "hops"),
    [
        ("v5e", (4, 4), 4, 1, 3),  # an open axis
        ("v5e", (16, 16), 16, 2, 8),  # a ring
        ("v5e", (16, 16), 256, 4, 16),
        ("v5p", (4, 4, 8), 8, 2, 4),
        ("v5p", (4, 4, 8), 128, 6, 8),
        ("v5p", (2, 2, 1), 4, 2, 2),
        ("tpu7x", (2, 2, 1), 4, 1, 1),  # two devices of each chip
    ],
)
def test_a_group_uses_the_links_of_the_axes_that_it_fills(chip, torus, devices, links, hops):
    assert link_bandwidth(CHIPS[chip], torus, devices) == links * CHIPS[chip].link
    assert link_latency(CHIPS[chip], torus, devices) == pytest.approx(hops * 1e-6)


def test_gpus_have_a_switch_in_a_node_and_network_cards_beyond_it():
    chip = CHIPS["h100"]
    assert link_bandwidth(chip, (), 8) == 450e9
    assert link_bandwidth(chip, (), 16) == 50e9
    assert math.isfinite(link_latency(chip, (), 16))
