"""Inputs and output of the component benchmarks, not their times."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from experiments.benchmarks import parts, speed


def test_a_tree_is_a_prompt_followed_by_its_responses():
    positions, segments, parents = (x[0] for x in parts.tree(5, 3, 2))
    np.testing.assert_array_equal(positions, [0, 1, 2, 3, 4, 5, 6, 7, 5, 6, 7])
    np.testing.assert_array_equal(segments, [1] * 5 + [2] * 3 + [3] * 3)
    np.testing.assert_array_equal(parents, [0] * 5 + [1] * 6)


def test_a_packed_row_is_eight_sequences_from_end_to_end():
    positions, segments = (x[0] for x in parts.packed(64))
    assert len(positions) == 64
    np.testing.assert_array_equal(np.unique(segments), np.arange(8) + 1)
    for segment in range(1, 9):
        own = positions[segments == segment]
        np.testing.assert_array_equal(own, np.arange(len(own)))


def test_a_table_names_machine_date_and_runs_and_its_ratios_can_be_drawn(monkeypatch, tmp_path):
    row = ["dense causal, 512", "2.1", "1.16", "7.9", "1.46", "1.00"]
    text = parts.table(["tokens", "ms", "speed-up over reference", "ms", "ratio", "computed"], [row])
    monkeypatch.setitem(parts.PARTS, "attention", lambda _: f"sizes\n\n{text}")
    report = parts.report(parts.PARTS["attention"], 3)
    first, *_, last = report.splitlines()
    assert "cores" in first
    assert "medians of 3 runs" in first
    assert last == "| dense causal, 512 | 2.1 | 1.16 | 7.9 | 1.46 | 1.00 |"
    parts.picture(report, tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_measures_a_part(monkeypatch, capsys):
    monkeypatch.setitem(parts.HEAD, "cpu", (32, 8, 64, (0, 16)))
    monkeypatch.setattr(speed, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(sys, "argv", ["rlvr benchmark", "head", "--runs=1"])
    speed.main()
    first, *_, all_at_once, chunks = capsys.readouterr().out.splitlines()
    assert first == "rlvr benchmark head --runs=1"
    assert [row.split(" | ")[0] for row in (all_at_once, chunks)] == ["| all at once", "| 16 tokens"]
    assert float(chunks.split(" | ")[2]) >= 0


def test_compared_calls_alternate():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    assert parts.side_by_side(calls, runs=2).keys() == {"a", "b"}
    assert order == ["a", "b"] * 3  # once to compile


@pytest.mark.parametrize("implementation", ["xla", "reference"])
def test_attention_calls_have_the_requested_shapes(implementation):
    forward, backward = parts.attention_calls(parts.tree(8, 4, 2), implementation, 3, 4, 2, 8, np.float32)
    assert forward().shape == (3, 16, 4, 8)
    assert [x.shape for x in backward()] == [(3, 16, 4, 8), (3, 16, 2, 8), (3, 16, 2, 8)]


@pytest.mark.parametrize(
    ("flags", "first", "tokens"),
    [
        (["rollout"], "rollout, size tiny: ", 128 * 6),
        (["train"], "train, packing none, size tiny: ", 128 * 10),
        (["train", "--packing=prefix_tree"], "train, packing prefix_tree, size tiny: ", 128 * 10),
    ],
)
def test_the_command_measures_a_rollout_and_a_training_step(monkeypatch, capsys, flags, first, tokens):
    small = {"vocab_size": 16, "num_layers": 1, "width": 16, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8}
    monkeypatch.setitem(speed.SIZES, "tiny", replace(speed.SIZES["tiny"], **small, mlp_width=16))
    for name, number in {"PROMPT_LENGTH": 4, "RESPONSE_LENGTH": 6, "LENGTH": 10}.items():
        monkeypatch.setattr(speed, name, number)
    monkeypatch.setattr(speed, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(speed, "machine_limits", lambda: (1e9, 1e9))
    monkeypatch.setattr(sys, "argv", ["rlvr benchmark", *flags, "--runs=1"])
    speed.main()
    line, _, _, median, *_ = capsys.readouterr().out.splitlines()
    assert line.startswith(first)
    assert f", {tokens} tokens; on cpu" in line
    assert float(median.split()[1]) > 0
