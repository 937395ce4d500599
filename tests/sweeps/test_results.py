"""The results of a sweep: numbers by hand, the page, and stored curves."""

import dataclasses
import json
import re

import numpy as np
import pytest

from rlvr_jax import own_code, sweeps
from rlvr_jax.config import from_dict
from rlvr_jax.errors import ConfigError, RunError
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.reporting import jsonl
from rlvr_jax.sweeps import estimate, plan, stored
from rlvr_jax.sweeps.metric import check_measured, check_metric
from rlvr_jax.sweeps.place import versions
from rlvr_jax.sweeps.report import report
from rlvr_jax.sweeps.results import results
from tests.experiments.runs import ROOT
from tests.reporting.test_report import Page
from tests.sweeps.fake_worker import rows

CONFIG = from_dict({"training": {"num_steps": 4}, "evaluation": {"problems": 256}})
BETTER = {"group_std": 0.0, "none": 0.2}
METRICS = ["eval/greedy_accuracy", "train/reward"]


def write_runs(folder, seeds, scales=("group_std", "none"), better=BETTER, place=None):
    """A sweep whose runs are finished."""
    grid = {"algorithm.scale": list(scales), "seed": list(seeds)}
    sweep = plan.make_sweep(folder, CONFIG, grid, warm_start=False)
    for run in plan.runs(sweep):
        run.folder.mkdir(parents=True)
        jsonl.append(run.folder / "metrics.jsonl", rows(run.config.seed, better[run.config.algorithm.scale]))
        plan.write_outcome(run, status="finished", seconds=2.0, cpu_seconds=1.0, error=None, place=place or versions())
    plan.write(sweep)
    return sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return write_runs(tmp_path_factory.mktemp("sweep") / "s", range(5))


@pytest.fixture(scope="module")
def found(sweep):
    return results(sweep)


def test_the_difference_is_paired_by_seed(found):
    base, other = found.variants
    ends = np.array([rows(seed)[-1]["eval/greedy_accuracy"] for seed in range(5)])
    assert base.final.mean == pytest.approx(ends.mean())
    assert base.sentence == "the base"
    assert np.isnan(base.final.difference)
    # The noise of a seed is the same in both, so that the differences have none.
    assert (other.final.difference, other.final.pairs) == (pytest.approx(0.2), 5)
    assert other.final.difference_low == pytest.approx(other.final.difference_high)
    assert other.area.difference == pytest.approx((0.05 * 2 + 0.15 * 2) / 4)
    assert other.final.verdict == other.area.verdict == "better"
    assert found.comparisons == 2
    assert other.sentence == "better at the end (+0.200) and over the run (+0.100), with 5 seeds"


def test_tokens_and_seconds_leave_evaluation_and_compilation_out(found):
    # 0.2 at step 0, 0.4 at step 2, 0.6 at step 4: the threshold 0.56 is met in step 4, at 100 tokens and 1 s a step.
    assert found.threshold == pytest.approx(0.2 + 0.9 * (found.variants[0].final.mean - 0.2))
    own = [rows(seed) for seed in range(5)]
    places = []
    for of_seed in own:
        a, b = (of_seed[i]["eval/greedy_accuracy"] for i in (2, 4))
        if b >= found.threshold:
            places.append(2 + 2 * (found.threshold - a) / (b - a))
    base = found.variants[0].reached
    assert len(base.seeds) == len(places)
    assert base.tokens == pytest.approx(100 * np.median(places))
    assert base.seconds == pytest.approx(np.median(places))
    assert len(found.variants[1].reached.seeds) == 5


def test_noise_is_called_noise_with_the_number_of_seeds_that_would_tell(tmp_path):
    seeds = range(5)
    made = write_runs(tmp_path / "s", seeds)
    for run in plan.runs(made):  # differences of +2, -1, +1, 0, +1 problems of 256
        shift = [2, -1, 1, 0, 1][run.config.seed] / 256 if run.config.algorithm.scale == "none" else 0.0
        of_run = [row | {"eval/greedy_accuracy": 0.5 + shift} for row in rows(0) if "eval/greedy_accuracy" in row]
        (run.folder / "metrics.jsonl").unlink()
        jsonl.append(run.folder / "metrics.jsonl", of_run)
    found = results(made)
    assert found.threshold is None
    other = found.variants[1]
    assert (other.final.verdict, other.final.pairs) == ("unclear", 5)
    assert other.final.p > 0.3
    assert re.fullmatch(
        r"not significant at the end \(\+0\.002; would need about \d+ seeds\) and over the run \(\+0\.002; .*\), "
        r"with 5 seeds",
        other.sentence,
    )


def test_missing_and_failed_seeds_are_left_out_of_the_pairs(tmp_path):
    made = write_runs(tmp_path / "s", range(3))
    for i, run in enumerate(plan.runs(made)):
        if i == 1:
            plan.write_outcome(run, status="failed", error="a reason", seconds=1.0, cpu_seconds=1.0, place={})
        if i == 2:
            (run.folder / "outcome.json").unlink()
    found = results(made)
    assert [sorted(x.final.values) for x in found.variants] == [[0, 2], [1, 2]]
    assert (found.variants[1].final.pairs, found.variants[1].failed, found.unfinished) == (1, {0: "a reason"}, 1)
    assert "1 seed can't tell" in found.variants[1].sentence
    page, _ = report(made)
    assert "a reason" in Page(page.read_text()).text


def test_the_config_of_the_page_is_that_of_the_base_and_two_seeds_have_no_interval(tmp_path):
    made = write_runs(tmp_path / "s", range(2), scales=("none", "group_std"))
    page, found = report(made)
    assert re.search(r"algorithm\.scale\s*none", Page(page.read_text()).text)
    assert repr(found).startswith("eval/greedy_accuracy ")
    assert "2 seeds can't tell" in found.variants[1].sentence
    assert (found.comparisons, " to " in repr(found)) == (0, False)


@pytest.mark.parametrize("left", [0, 2])
def test_a_seed_whose_metrics_are_cut_is_named_and_the_others_are_compared(left, tmp_path):
    made = write_runs(tmp_path / "s", range(3))
    run = next(run for run in plan.runs(made) if run.variant == 1)
    path = run.folder / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:left]))
    found = results(made).variants[1]
    assert (list(found.failed), found.final.pairs) == ([run.config.seed], 2)
    assert str(path) in found.failed[run.config.seed]


def test_the_page_is_self_contained_and_says_what_the_data_say(sweep):
    path, found = report(sweep)
    page = Page(path.read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert page.tags.count("svg") == len(found.variants[0].curves) + 1
    assert "10 of 10" in text
    for variant in found.variants:
        assert variant.label in text
        assert variant.sentence in text
    assert "+0.200" in text
    data = json.loads((sweep.folder / "results.json").read_text())
    assert data["variants"][1]["final"]["difference"] == pytest.approx(0.2)
    assert data["variants"][0]["final"]["difference"] is None
    assert repr(found).count("\n") == 2


def test_a_sweep_without_a_finished_run_has_a_page(tmp_path):
    made = plan.make_sweep(tmp_path, CONFIG, {"seed": [0], "algorithm.scale": ["none", "group_std"]})
    page, found = report(made)
    assert "0 of 2" in Page(page.read_text()).text
    assert found.variants[0].sentence == "no run is finished"


def test_more_variants_than_colours_and_one_variant_alone_can_be_drawn(tmp_path):
    grid = {"algorithm.clip_low": [i / 20 for i in range(1, 13)], "seed": [0, 1]}
    many = plan.make_sweep(tmp_path / "many", CONFIG, grid, warm_start=False)
    for run in plan.runs(many):
        run.folder.mkdir(parents=True)
        jsonl.append(run.folder / "metrics.jsonl", rows(run.config.seed, run.config.algorithm.clip_low / 5))
        plan.write_outcome(run, status="finished", seconds=2.0, cpu_seconds=1.0, error=None, place=versions())
    assert "Coloured are the eight" in report(many)[0].read_text()
    alone = write_runs(tmp_path / "alone", [3], scales=["none"])
    assert report(alone)[1].comparisons == 0


def test_a_stored_experiment_is_reproduced_to_the_bit_and_other_seeds_lie_in_its_band(sweep, tmp_path):
    file = tmp_path / "curves" / "mine.json"
    made = stored.experiment(sweep, METRICS)
    stored.write(made, file)
    kept = stored.read(file)
    assert kept == made
    assert (kept.metrics, kept.seeds) == (METRICS, [0, 1, 2, 3, 4])
    assert len(file.read_text().splitlines()) < 120
    listed = [line.split("  ", 1)[1].strip() for line in estimate.of_curves({"mine": kept, "other": kept}).splitlines()]
    assert listed == ["10 runs, about 0:00:20", "10 runs, about 0:00:20", "20 runs, about 0:00:40"]
    again = stored.sweep_of(kept, tmp_path / "again", [1])
    with pytest.raises(RunError, match="again"):
        stored.compare(kept, again)
    assert [run.config.seed for run in plan.runs(again)] == [1, 1]
    assert again.config == sweep.config
    write_runs(again.folder, [1])
    base, reward, _, other = stored.compare(kept, again)
    assert [x.metric for x in (base, reward)] == METRICS
    assert (reward.mean, reward.steps) == ([0.1, 0.2, 0.3, 0.4], [1, 2, 3, 4])
    assert (base.same_bits, base.other_bits, base.outside, base.succeeded) == ([1], [], [], True)
    assert "seed 1 to the bit" in base.sentence
    assert "train/reward of 1 seed lies in the band of 5 seeds" in other.sentence
    write_runs(tmp_path / "new", [7, 8])
    new = stored.compare(kept, stored.sweep_of(kept, tmp_path / "new", [7, 8]))
    assert [(x.same_bits, x.outside, x.succeeded) for x in new] == [([], [], True)] * 4


def test_a_curve_outside_of_the_band_is_said_to_be_with_its_steps(sweep, tmp_path):
    kept = stored.experiment(sweep)
    write_runs(tmp_path / "s", [7], better={"group_std": 0.4, "none": 0.2})
    worse, same = stored.compare(kept, stored.sweep_of(kept, tmp_path / "s", [7]))
    assert worse.outside == [2, 4]
    assert "OUTSIDE of the band of 5 seeds at steps 2, 4" in worse.sentence
    assert (worse.succeeded, same.succeeded) == (False, True)


def test_other_bits_on_the_same_machine_are_an_error_and_elsewhere_none(sweep, tmp_path):
    kept = stored.experiment(sweep)
    for place, succeeded in ((versions(), False), (versions() | {"jax": "0.0"}, True)):
        folder = tmp_path / str(succeeded)
        write_runs(folder, [1], place=place)
        for run in plan.runs(plan.read(folder)):
            changed = [row | {"train/loss": 0.5} for row in jsonl.read(run.folder / "metrics.jsonl")]
            (run.folder / "metrics.jsonl").unlink()
            jsonl.append(run.folder / "metrics.jsonl", changed)
        for x in stored.compare(kept, stored.sweep_of(kept, folder, [1])):
            assert x.succeeded == succeeded
            assert ("NOT to the bit" if not succeeded else "(other jax)") in x.sentence


def test_runs_of_different_code_are_named_before_the_first_run_and_in_the_report(tmp_path, capsys):
    made = write_runs(tmp_path / "s", range(2))
    own = tmp_path / "own.py"
    reward = {"reward": [["score", 1.0], [f"{own}:brevity", 0.1]]}
    made = dataclasses.replace(made, config=from_dict({"training": {"num_steps": 4}} | reward))
    for text, finished in (("1", plan.runs(made)[:3]), ("2", plan.runs(made)[3:])):
        own.write_text(text)
        for run in finished:
            environment = dict.fromkeys(("devices", "machine", "command"), "x")
            environment["code"] = own_code.checksums(run.config)
            (run.folder / "environment.json").write_text(json.dumps(environment))
    names = [str(run.folder.relative_to(made.folder)) for run in plan.runs(made)]
    line = f"own.py (config.reward): one version in {', '.join(names[:3])}; another in {{}}"
    sweeps.say_edits(made)
    assert capsys.readouterr().err == ""  # nothing is to be made
    assert line.format(names[3]) in " ".join(Page(report(made)[0].read_text()).text.split())
    assert line.format(names[3]) in repr(results(made))
    (plan.runs(made)[3].folder / "outcome.json").unlink()
    sweeps.say_edits(made)
    assert line.format("the runs to be made") in capsys.readouterr().err
    assert results(made).edits == []


def test_runs_of_other_versions_are_made_again(tmp_path):
    made = write_runs(tmp_path / "s", range(2), place=versions() | {"jax": "0.0"})
    first = plan.runs(made)[0]
    plan.write_outcome(
        first, status="finished", seconds=1.0, cpu_seconds=1.0, error=None, place=versions() | {"x": "y"}
    )
    assert (results(made).places, "2 different versions" in report(made)[0].read_text()) == (2, True)
    plan.remove_older(made)
    assert all(run.folder.exists() for run in plan.runs(made))  # they are a sweep's
    plan.write(dataclasses.replace(made, reproduces=True))
    plan.remove_older(made)
    assert [run.folder.exists() for run in plan.runs(made)] == [True, False, False, False]


def test_metrics_that_runs_do_not_measure_are_named_before_the_runs():
    for metric, named in (
        ("task/other/accuracy", "task/modsum/accuracy"),
        ("reward", "docs/metrics.md"),
        ("train/acuracy", "train/accuracy"),
        ("train/kl_k1", "config.algorithm.reference"),
        ("critic/value", "config.algorithm.baseline = 'value'"),
        ("sft/loss", "supervised"),
    ):
        with pytest.raises(ConfigError, match=f"--metric={metric}.*{named}"):
            check_metric(CONFIG, metric)
    own_loss = AlgorithmConfig(reference="initial", kl_coef=0.1, loss="mine:loss")
    for config, metric in (
        (CONFIG, "task/modsum/greedy_accuracy"),
        (CONFIG, "train/finish/length"),
        (dataclasses.replace(CONFIG, algorithm=own_loss), "train/kl_k1"),
        (dataclasses.replace(CONFIG, algorithm=own_loss), "mine/of_the_loss"),
    ):
        check_metric(config, metric)


def test_a_metric_that_the_first_run_has_not_measured_stops_the_others(sweep):
    first = plan.runs(sweep)[0]
    check_measured(first, "eval/greedy_accuracy")
    with pytest.raises(ConfigError, match=r"train/kl: .*metrics\.jsonl has no such metric"):
        check_measured(first, "train/kl")


def test_what_can_not_be_stored_is_refused(sweep, tmp_path):
    with pytest.raises(RunError, match="3 seeds at least"):
        stored.experiment(write_runs(tmp_path / "two", range(2)))
    with pytest.raises(RunError, match=r"runs .* are not finished"):
        stored.experiment(dataclasses.replace(sweep, seeds=(0, 1, 2, 9)))
    with pytest.raises(RunError, match="no metric eval/nothing"):
        stored.experiment(sweep, [METRICS[0], "eval/nothing"])
    with pytest.raises(ConfigError, match="--metric"):
        stored.experiment(sweep, [])
    with pytest.raises(ConfigError, match="no run has the metric 'eval/nothing'"):
        results(sweep, "eval/nothing")
    with pytest.raises(ConfigError, match=r"eval/pass@9: the runs measure .*eval/pass@8"):
        check_metric(CONFIG, "eval/pass@9")
    (tmp_path / "x.json").write_text('{"curves": {}}')
    with pytest.raises(ConfigError, match=r"x\.json is damaged"):
        stored.read(tmp_path / "x.json")
    record = dataclasses.asdict(stored.experiment(sweep))
    (name, (metric, curve)), (other, _) = ((name, *x.items()) for name, x in record["curves"].items())
    ragged = {**curve, "values": {**curve["values"], "0": [0.5]}}
    long = {**curve, "steps": [10**400, *curve["steps"][1:]]}
    short = {**curve, "values": {"0": curve["values"]["0"]}}
    empty = {**dict.fromkeys(curve, ()), "values": dict.fromkeys(curve["values"], ())}
    other_mean = {**curve, "mean": curve["mean"][1:]}
    curves = record["curves"]
    for wrong in (
        [1],
        record | {"curves": []},
        record | {"curves": {key: {} for key in curves}},
        record | {"curves": curves | {other: {"train/reward": curve}}},
        record | {"digests": {}},
        record | {"grid": [1]},
        record | {"place": 3},
        record | {"seconds": "long"},
        *(record | {"curves": curves | {name: {metric: x}}} for x in (ragged, long, short, empty, other_mean)),
    ):
        (tmp_path / "x.json").write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=r"x\.json is damaged"):
            stored.read(tmp_path / "x.json")
    made = write_runs(tmp_path / "damaged", [0])
    for text in ("[]", "3", '{"status": "finished"}'):
        (plan.runs(made)[0].folder / "outcome.json").write_text(text)
        with pytest.raises(ConfigError, match=r"outcome\.json is damaged"):
            plan.left(made)


@pytest.mark.parametrize("path", sorted((ROOT / "experiments" / "curves").glob("*.json")), ids=lambda path: path.stem)
def test_the_stored_curves_can_be_made_again(path):
    found = stored.read(path)
    for metric in found.metrics:
        check_metric(plan.base(stored.sweep_of(found, path, [0])), metric)
