"""Runs as functions, and the pictures of them."""

import json

import pytest

import rlvr_jax
from rlvr_jax import plot
from rlvr_jax.config import to_dict
from rlvr_jax.errors import ConfigError
from rlvr_jax.runs import Run
from tests.training.test_loop import TINY

pytestmark = pytest.mark.usefixtures("no_curves", "one_device")


def written(folder, values, metric="train/reward"):
    folder.mkdir()
    rows = [{"step": step, metric: value} for step, value in enumerate(values)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Run(folder)


def test_a_run_starts_from_a_warm_start_goes_on_and_shows_what_it_has_written(tmp_path):
    tiny = to_dict(TINY)
    start = rlvr_jax.sft(tiny, tmp_path / "sft", {"sft.num_steps": 2, "sft.save_every": 2, "sft.updates_per_call": 2})
    assert [row["step"] for row in start.metrics] == [1, 2]
    assert start.samples == []
    changes = {"init_from": str(start.workdir), "training.num_steps": 1}
    one = rlvr_jax.train(tiny, tmp_path / "run", changes)
    assert list(one.curve("train/reward")) == [1]
    two = rlvr_jax.train(tiny, tmp_path / "run", changes | {"training.num_steps": 2})
    assert list(two.curve("train/reward")) == [1, 2]
    assert two.curve("train/reward")[1] == one.curve("train/reward")[1]
    assert two.report.exists()
    suite = {"tasks": {"sums": {"name": "modsum", "options": {"digits": 2}}}}
    numbers = rlvr_jax.evaluate(two, problems=4, samples=4, ks=[2], suite=suite)
    assert (numbers["step"], len(numbers["values"]["pass@2"])) == (2, 4)
    assert numbers["task/sums/pass@2"] == numbers["eval/pass@2"]
    assert [len(row["samples"]) for row in numbers["rows"]] == [4] * 4
    assert "eval/pass@1" not in numbers
    with pytest.raises(ConfigError, match=r"3 .* 2"):
        rlvr_jax.evaluate(tmp_path / "run", samples=2, ks=[3])
    assert {"train", "heldout"} == {row["split"] for row in two.samples}
    assert two.findings == []  # of two steps
    counts = rlvr_jax.sample(two, tmp_path / "best.jsonl", keep="best", problems=5, samples=4)
    rows = [json.loads(line) for line in (tmp_path / "best.jsonl").read_text().splitlines()]
    assert counts["written"] == len(rows) > 0
    pairs = [{"prompt": x["prompt"], "chosen": "#1", "rejected": "#2", "margin": 1.0} for x in rows]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    own = {
        "sources": {"own": {"file": str(tmp_path / "pairs.jsonl")}},
        "num_steps": 1,
        "save_every": 1,
        "updates_per_call": 1,
    }
    changes = {"init_from": str(two.workdir), **{f"preferences.{key}": value for key, value in own.items()}}
    assert [row["step"] for row in rlvr_jax.prefer(tiny, tmp_path / "dpo", changes).metrics][-1] == 1


def test_wrong_configs_and_keys_are_named(tmp_path):
    for config, changes, message in (
        ("quickstar", {}, "'quickstart'"),
        (None, {}, "None"),
        ("quickstart", {"algorithm.scal": "none"}, "algorithm.scal"),
        ("quickstart", {"rollout.prompts": "many"}, "rollout.prompts"),
    ):
        with pytest.raises(ConfigError, match=message):
            rlvr_jax.train(config, tmp_path, changes)
    with pytest.raises(KeyError, match="train/reward"):
        written(tmp_path / "a", [1.0]).curve("train/rewards")


def test_pictures_have_a_panel_for_each_metric_and_a_band_for_each_label(tmp_path):
    runs = {
        label: [written(tmp_path / f"{label}{seed}", [0.1 * seed, 0.2 + shift]) for seed in range(3)]
        for label, shift in (("a", 0.0), ("b", 0.5))
    }
    drawn = plot.curves(runs, {"train/reward": "the reward"})
    (axes,) = drawn.figure.axes
    assert axes.get_title(loc="left") == "the reward"
    assert [list(line.get_ydata()) for line in axes.lines] == [
        pytest.approx([0.1, 0.2]),
        pytest.approx([0.1, 0.7]),
    ]
    assert len(axes.collections) == 2
    assert [text.get_text() for text in drawn.figure.legends[0].get_texts()] == ["a", "b"]
    drawn.save(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes() == drawn._repr_png_()
    named = plot.curves(runs, "train/reward", labels=["x", "y"])
    assert [text.get_text() for text in named.figure.legends[0].get_texts()] == ["x", "y"]
    (axes,) = plot.curves(runs["a"][0], ["train/reward"]).figure.axes
    assert (len(axes.lines), len(axes.collections)) == (1, 0)


def test_a_label_has_its_colour_in_panels_that_lack_others_and_is_in_the_legend(tmp_path):
    runs = {"none": [], "a": [written(tmp_path / "a", [0.1, 0.2])], "b": [written(tmp_path / "b", [0.3, 0.4])]}
    rows = [{"step": step, "train/reward": 0.5, "critic/loss": 0.1} for step in (1, 2)]
    (tmp_path / "b" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure = plot.curves(runs, ["critic/loss", "train/reward"]).figure
    colours = [[line.get_color() for line in axes.lines] for axes in figure.axes]
    assert colours == [[plot.CYCLE[2]], [plot.CYCLE[1], plot.CYCLE[2]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_pictures_of_nothing_are_refused(tmp_path):
    run = written(tmp_path / "a", [1.0])
    with pytest.raises(KeyError, match="train/reward"):
        plot.curves(run, "eval/greedy_accuracy")
    for wrong in ("nope", 5, {"a": "b"}, [run, None]):
        with pytest.raises(ValueError, match="rlvr_jax"):
            plot.curves(wrong, "train/reward")
    with pytest.raises(ValueError, match="no runs"):
        plot.curves({}, "train/reward")
    with pytest.raises(ValueError, match="zip"):
        plot.curves({"a": run}, "train/reward", labels=["x", "y"])


def test_points_have_a_line_for_each_label_with_its_name_at_the_end():
    numbers = {"a": {"x": [1.0, 2.0], "y": [3.0, 4.0]}, "b": {"x": [0, 0], "y": [3.5, 3.5]}}
    (axes,) = plot.points(numbers, "stage").figure.axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[1.5, 3.5], [0, 3.5]]
    assert [x.get_text() for x in axes.get_xticklabels()] == ["x", "y"]
    assert sorted(text.get_text() for text in axes.texts) == ["a", "b"]
    heights = [text.xy[1] for text in axes.texts]
    assert abs(heights[0] - heights[1]) > 0.2  # of equal ends one label is moved
    for wrong in ({}, {"a": {"x": [1.0]}, "b": {"y": [1.0]}}, {"a": {"x": [1.0], "y": [1.0, 2.0]}}):
        with pytest.raises(ValueError, match="places"):
            plot.points(wrong, "stage")


def test_tasks_side_by_side_have_metrics_of_their_own(tmp_path):
    runs = {label: written(tmp_path / label, [0.1, shift]) for label, shift in (("a", 0.3), ("b", 0.9))}
    shown = {"train/reward": "the reward"}
    drawn = plot.side_by_side({"first": (runs, shown), "second": (runs["a"], shown)})
    left, right = drawn.figure.axes
    assert left.get_title(loc="left") == "first\nthe reward"
    assert [text.get_text() for text in left.texts] == ["a", "b"]
    assert (len(left.lines), len(right.lines)) == (2, 1)
    with pytest.raises(ValueError, match="number of metrics"):
        plot.side_by_side({"first": (runs, shown), "second": (runs, shown | {"b": "c"})})


def test_a_calibrated_policy_is_on_the_diagonal():
    said = lambda *answers: {"samples": [{"answer": x, "score": float(x == "1")} for x in answers]}  # noqa: E731
    drawn = plot.calibration({"sure": [said(*"1111")], "wrong": [said(*"0011"), said(*"0000")]})
    (axes,) = drawn.figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["sure: error 0.00", "wrong: error 0.75"]
