"""The picture of several runs."""

import json

import pytest

from experiments.compare_runs import draw


def run(folder, accuracies):
    folder.mkdir()
    lines = [
        {"step": step, "eval/greedy_accuracy": x, "eval/greedy_accuracy_low": x / 2, "eval/greedy_accuracy_high": 1.0}
        for step, x in enumerate(accuracies)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_runs_of_different_lengths_make_one_picture_and_one_without_evaluations_is_named(tmp_path):
    runs = {"seed 0": run(tmp_path / "a", [0.1, 0.9]), "shuffled": run(tmp_path / "b", [0.1, 0.1, 0.2])}
    draw(runs, tmp_path / "curves.png", "a title")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"/c: metrics\.jsonl has no evaluation"):
        draw({"empty": run(tmp_path / "c", [])}, tmp_path / "curves.png")
