"""The report holds what a run's files say, is self-contained, and survives what models write."""

import json
import math
import re

import pytest

from rlvr_jax.reporting import curves, embedded, jsonl
from rlvr_jax.reporting.comparison import labels_of, write_comparison
from rlvr_jax.reporting.panels import panels
from rlvr_jax.reporting.report import write_report
from tests.pages import Page

HOSTILE = "</pre></script><script>alert(1)</script><img src=http://x.example/y onerror=z>\x00\x1b[2J\u202e\ud800 & end"


def sample(step, split="heldout", **changes):
    row = {
        "step": step, "split": split, "example": "modsum/heldout/3", "task": "modsum", "prompt": "123456=",
        "completion": f"#{step}", "reference": "1", "score": float(step == 1), "reward": None, "answer": str(step),
        "reason": "because", "error": None, "finish_reason": "stop", "length": 3,
    }  # fmt: skip
    return row | changes


def run_of(folder, rows, samples=(), config=None):
    """A workdir with these files; returns the parsed page."""
    (folder / "config.json").write_text(json.dumps(config or {"seed": 5, "tasks": {"modsum": {"weight": 1.0}}}))
    jsonl.append(folder / "metrics.jsonl", rows)
    jsonl.append(folder / "samples.jsonl", samples)
    path = write_report(folder)
    assert path == folder / "report.html"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    return Page(path.read_text(encoding="utf-8"))


def typical_rows(steps=60):
    rows = [
        {"step": 0, "eval/greedy_accuracy": 0.125, "eval/greedy_accuracy_low": 0.09, "eval/greedy_accuracy_high": 0.2}
    ]
    for step in range(1, steps + 1):
        row = {
            "step": step, "train/reward": 1 - math.exp(-step / 9), "train/entropy": 1 / step, "train/kl": step / 99,
            "train/grad_norm": 1.5, "train/zero_signal_groups": 0.25, "train/logprob_gap": 1e-6, "time/rollout": 0.25,
            "time/verify": 0.25, "time/train": 0.5, "time/step": 1.25, "time/rollout_tokens_per_second": 1000.0,
            "verify/errors": 2, "train/skipped_steps": 3, "custom/thing": step / 2,
        }  # fmt: skip
        if step % 10 == 0:
            row |= {"eval/greedy_accuracy": step / 60, "eval/pass@8": 1.0}
            row |= {"eval/greedy_accuracy_low": step / 70, "eval/greedy_accuracy_high": min(1.0, step / 55)}
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def typical(tmp_path_factory):
    samples = [sample(0), sample(1), sample(1, "train", reward=0.5, completion="thinking #7")]
    return run_of(tmp_path_factory.mktemp("run"), typical_rows(), samples)


def test_headlines_are_first_and_last_values(typical):
    assert "0.125 → 1" in typical.text
    assert "step 0 → 60; 95 % interval at the end 0.857 to 1.000" in typical.text
    assert "modsum, seed 5" in typical.text


def test_counts_are_summed_where_they_are_of_one_step_and_last_where_cumulative(typical):
    assert re.search(r"unjudged completions\s*120", typical.text)
    assert re.search(r"skipped updates\s*3", typical.text)


def test_time_is_split_into_phases_with_their_shares(typical):
    assert re.search(r"sampling\s*15\.00\s*20\.0 %\s*250\.0 ms", typical.text)
    assert re.search(r"training\s*30\.00\s*40\.0 %\s*500\.0 ms", typical.text)
    assert re.search(r"the rest[^0-9]*15\.00\s*20\.0 %", typical.text)


def test_every_metric_is_there_with_the_panels_that_show_it(typical):
    data = typical.pieces["curves"]
    (run,) = data["runs"]
    assert run["label"] == "modsum, seed 5"
    assert run["metrics"]["eval/greedy_accuracy"][:2] == [
        list(range(0, 61, 10)),
        [0.125, *(float(f"{i / 6:.6g}") for i in range(1, 7))],
    ]
    assert run["metrics"]["custom/thing"][1] == [i / 2 for i in range(1, 61)]
    assert len(data["panels"]) >= 8
    assert all(
        panel["caption"] and {x["metric"] for x in panel["series"]} <= run["metrics"].keys() for panel in data["panels"]
    )
    (stack,) = [panel["stack"] for panel in data["panels"] if panel["kind"] == "stack"]
    assert stack["edges"][:4] == [0.5, 1.5, 1.5, 2.5]
    assert [parts[0] for parts in stack["heights"]] == [0.25, 0.25, 0.5]


def test_long_runs_are_reduced_and_lose_no_largest_value():
    rows = [{"step": i, "train/reward": i % 2, "train/logprob_gap": float(i == 777)} for i in range(5000)]
    data = embedded.unpacked(dict(embedded.curves_of({"a": rows}, panels(rows)))["curves"])
    metrics = data["runs"][0]["metrics"]
    assert all(len(metrics[name][0]) == len(metrics[name][1]) == 556 for name in ("train/reward", "train/logprob_gap"))
    assert max(metrics["train/logprob_gap"][1]) == 1.0
    assert 0.4 < metrics["train/reward"][1][0] < 0.6


def test_training_steps_without_a_metric_of_training_are_gaps():
    lengths = [2.0, None, 3.0, 4.0]
    rows = [{"step": i, "train/response_length": 3.0} for i in range(1, 5)] + [{"step": 5, "eval/pass@1": 0.5}]
    for row, length in zip(rows, lengths, strict=False):
        row |= {"train/response_length_right": length} if length else {}
    data = embedded.unpacked(dict(embedded.curves_of({"a": rows}, panels(rows)))["curves"])
    assert data["runs"][0]["metrics"]["train/response_length_right"] == [[1, 2, 3, 4], lengths, []]


def test_the_same_problem_stands_side_by_side_at_first_and_last_evaluation(typical):
    assert re.search(r"123456=\s*1\s*#0\s*wrong\s*because\s*#1\s*right", typical.text)


def test_metrics_without_a_picture_are_listed(typical):
    assert re.search(r"custom/thing\s*0\.5\s*30", typical.text)


def test_the_page_loads_nothing_from_elsewhere(typical):
    assert all(reference.startswith(("#", "data:")) for reference in typical.references)
    assert not {"link", "iframe", "img"} & set(typical.tags)
    assert typical.tags.count("script") == 1 + len(typical.pieces)
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)|\bfetch\(|import\(|innerHTML|\beval\(", embedded.scripts()
    )


def test_samples_are_listed_by_columns_and_read_in_chunks(tmp_path):
    samples = [
        sample(
            i, "train", reward=i / 8, completion=f"{i}{'x' * 9000}", error="slow" if i == 3 else None, task=f"t{i % 2}"
        )
        for i in range(100)
    ]
    page = run_of(tmp_path, [{"step": 1, "train/reward": 0.0}], samples)
    index = page.pieces["samples"]
    columns = index["columns"]
    assert (index["count"], len(index["first"])) == (100, len(page.pieces) - 2)
    assert len(index["first"]) > 2
    assert index["first"] == sorted(index["first"])
    assert columns["step"] == list(range(100))
    assert columns["reward"] == [i / 8 for i in range(100)]
    assert columns["error"] == [int(i == 3) for i in range(100)]
    assert [columns["task"]["names"][i] for i in columns["task"]["of"]] == ["t0", "t1"] * 50
    assert [x["completion"][:2].rstrip("x") for x in page.samples] == [str(i) for i in range(100)]
    assert page.samples[3] | {"completion": ""} == {
        "prompt": "123456=", "completion": "", "gold": "1", "answer": "3", "reason": "because", "error": "slow"
    }  # fmt: skip


def test_a_page_about_several_runs_has_their_curves_samples_and_differences(tmp_path):
    for name, seed, reward in (("a", 1, 0.25), ("b", 2, 0.5)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        rows = [{"step": 1, "train/reward": reward}, {"step": 2, "train/reward": 2 * reward}]
        config = {"seed": seed, "tasks": {"modsum": {"weight": 1.0}}, "optimizer": {"learning_rate": 0.1}}
        run_of(tmp_path / "runs" / name, rows, [sample(1, "train", reward=reward)], config)
        environment = {"code": {"reward": {"mine.py": name}}}
        (tmp_path / "runs" / name / "environment.json").write_text(json.dumps(environment))
    workdirs = [tmp_path / "runs" / "a", tmp_path / "runs" / "b"]
    write_comparison(dict(zip(labels_of(workdirs), workdirs, strict=True)), tmp_path / "both.html")
    page = Page((tmp_path / "both.html").read_text())
    text = " ".join(page.text.split())
    assert "a0.52 b12" in text
    assert "mine.py (config.reward): one version in a; another in b" in text
    assert "seed12" in text
    assert "learning_rate" not in text
    assert [(run["label"], run["metrics"]["train/reward"][1]) for run in page.pieces["curves"]["runs"]] == [
        ("a", [0.25, 0.5]),
        ("b", [0.5, 1.0]),
    ]
    assert page.pieces["samples"]["columns"]["run"] == {"names": ["a", "b"], "of": [0, 1]}
    assert labels_of([tmp_path / "runs" / "a", tmp_path / "runs" / "a" / "sft"]) == ["a", "a/sft"]
    with pytest.raises(ValueError, match="runs/a is given twice"):
        labels_of([workdirs[0], workdirs[1], tmp_path / "runs" / "b" / ".." / "a"])


def test_a_run_without_metrics_has_a_page(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"seed": 1, "tasks": {"modsum": {"weight": 1.0}}}))
    assert "No metrics yet" in Page(write_report(tmp_path).read_text()).text


def test_a_page_elsewhere_is_all_that_is_written(tmp_path):
    folder, out = tmp_path / "run", tmp_path / "page.html"
    folder.mkdir()
    assert write_report(folder, out) == out
    assert out.exists()
    assert list(folder.iterdir()) == []


def test_numbers_that_are_not_finite_are_shown(tmp_path):
    rows = [
        {"step": 1, "train/grad_norm": math.nan, "train/reward": 0.5, "x": math.inf},
        {"step": 2, "train/reward": 0.5},
    ]
    page = run_of(tmp_path, rows)
    assert re.search(r"x\s*Infinity\s*Infinity", page.text)


def test_hostile_text_is_shown_and_harmless(tmp_path):
    row = sample(1, "train", completion=HOSTILE, prompt=HOSTILE, reason=HOSTILE, reward=0.0, reference={"x": HOSTILE})
    page = run_of(tmp_path, [{"step": 1, "train/reward": 0.0}], [row], config={"task": {"name": HOSTILE}})
    assert "img" not in page.tags
    assert page.tags.count("script") == 1 + len(page.pieces)
    assert page.samples[0]["completion"] == HOSTILE
    assert json.loads(page.samples[0]["gold"]) == {"x": HOSTILE}


def test_hostile_text_of_compared_problems_is_shown_and_harmless(tmp_path):
    rows = [
        sample(step, completion=HOSTILE, prompt=HOSTILE, reason=HOSTILE, reference={"x": HOSTILE}) for step in (0, 1)
    ]
    page = run_of(tmp_path, [{"step": 1, "train/reward": 0.0}], rows, config={"task": {"name": HOSTILE}})
    assert "img" not in page.tags
    assert page.tags.count("script") == 1 + len(page.pieces)
    assert "<script>alert(1)</script>" in page.text
    assert "\\x00\\x1b[2J\\x202e\\xd800 & end" in page.text


def test_long_completions_are_cut_and_say_so(tmp_path):
    rows = [sample(step, completion="a" * 1_020_000) for step in (0, 1)]
    page = run_of(tmp_path, [{"step": 1, "train/reward": 0.0}], rows)
    assert "1,018,000 more characters" in page.text
    assert len(page.text) < 200_000
    assert [len(x["completion"]) for x in page.samples] == [20_000 + len("\n… 1,000,000 more characters")] * 2


def test_a_completion_without_judgement_says_why(tmp_path):
    row = sample(1, error="timed out after 5 s", reward=0.0, finish_reason="length", length=77)
    page = run_of(tmp_path, [{"step": 1, "train/reward": 0.0}], [row])
    assert re.search(r"unjudged\s*timed out after 5 s · cut off after 77 tokens", page.text)


def test_a_damaged_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("row", "metric"), [({"train/reward": 1.0}, "step"), ({"step": 2, "train/loss": "x"}, "train/loss")]
)
def test_a_damaged_metric_is_named(tmp_path, row, metric):
    lines = [json.dumps({"step": 1, "train/reward": "NaN"}), json.dumps(row)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    for write in (write_report, lambda path: write_comparison({"a": path}, path / "page.html")):
        with pytest.raises(ValueError, match=rf"metrics\.jsonl is damaged: '{metric}' of its row 2"):
            write(tmp_path)


@pytest.mark.parametrize(("field", "value"), [("prompt", None), ("terms", [1]), ("spans", [{}]), ("example", 3)])
def test_a_damaged_sample_is_named(tmp_path, field, value):
    row = dict.fromkeys(("task", "example", "prompt", "completion"), "x") | {"step": 1, "terms": None, "spans": None}
    lines = [json.dumps(row), json.dumps(row | {field: value})]
    (tmp_path / "samples.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=rf"samples\.jsonl is damaged: '{field}' of its sample 2"):
        write_report(tmp_path)


def test_every_task_has_a_row_with_first_and_last_values_and_samples_of_its_own(tmp_path):
    rows = [
        {"step": 0, "task/gsm8k/greedy_accuracy": 0.25, "task/math/greedy_accuracy": 0.5},
        {
            "step": 1, "task/gsm8k/reward": 0.125, "task/math/reward": 0.75, "task/gsm8k/greedy_accuracy": 0.375,
            "task/gsm8k/greedy_accuracy_low": 0.3, "task/gsm8k/greedy_accuracy_high": 0.45,
            "task/math/greedy_accuracy": 0.625, "eval/greedy_accuracy": 0.5,
        },
    ]  # fmt: skip
    samples = [
        sample(step, task=task, example=f"{task}/heldout/{i}", prompt=f"{task} problem {i}.")
        for step in (0, 1)
        for task in ("gsm8k", "math")
        for i in range(20)
    ]
    page = run_of(tmp_path, rows, samples, {"seed": 0, "tasks": {"gsm8k": {}, "math": {}}})
    text = " ".join(page.text.split())
    assert "gsm8k + math, seed 0" in text
    assert "Held-out accuracy by task" in page.panels
    html = (tmp_path / "report.html").read_text()
    cells = ["gsm8k", "0.125", "0.25 → 0.375 (0.300 to 0.450)"]
    assert "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" in html
    for task in ("gsm8k", "math"):
        assert sum(f"{task} problem {i}." in text for i in range(20)) == 8


def test_a_supervised_run_has_its_sources_its_loss_and_how_far_it_is(tmp_path):
    facts = {"data/a/rows": 40, "data/a/left_out": 1, "data/a/length": 7.5, "data/b/rows": 5, "data/b/left_out": 0}
    rows = [{"step": 0} | facts]
    for step, loss in ((10, 2.0), (20, 1.0)):
        row = {"sft/loss": loss, "sft/a/loss": loss + 1, "sft/b/loss": loss - 1, "sft/grad_norm": 0.5}
        rows.append({"step": step} | row | {"time/step": 4.0, "time/sft_tokens_per_second": 300.0})
    config = {"run": "sft", "seed": 2, "tasks": {"modsum": {}}, "sft": {"sources": {"a": {}, "b": {}}, "num_steps": 80}}
    page = run_of(tmp_path, rows, config=config)
    text = " ".join(page.text.split())
    assert "a + b, seed 2" in text
    assert re.search(r"2 → 1.*20 of 80 steps.*300 tok/s", text)
    lines = {panel["title"]: [x["metric"] for x in panel["series"]] for panel in page.pieces["curves"]["panels"]}
    assert lines["Supervised loss"] == ["sft/loss", "sft/a/loss", "sft/b/loss"]
    assert lines["Gradient norm"] == ["sft/grad_norm"]
    html = (tmp_path / "report.html").read_text()
    for cells in (["a", "40", "1", "7.5", "3 → 2"], ["b", "5", "0", "-", "1 → 0"]):
        assert "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>" in html


def test_what_all_prompts_of_a_task_begin_with_stands_once(tmp_path):
    opening = "You are a careful assistant.\n\n" + "".join(f"Q: {i} + {i}?\nA: {2 * i}\n" for i in range(9))
    rows = [sample(1, prompt=f"{opening}Q: {i} + 70?\nA:", example=f"modsum/heldout/{i}") for i in range(10, 14)]
    short = [sample(1, prompt=f"12{i}=", example=f"sums/heldout/{i}", task="sums") for i in range(4)]
    page = run_of(tmp_path, [{"step": 1, "train/reward": 0.0}], rows + short)
    assert page.text.count("careful assistant") == 1
    assert page.text.count("Q: 8 + 8?") == 1
    assert all(f"{i} + 70?" in page.text and f"12{i - 10}=" in page.text for i in range(10, 14))


def test_one_prompt_of_a_task_is_shown_whole(tmp_path):
    prompt = "one of its kind " * 20
    page = run_of(tmp_path, [{"step": 1, "train/reward": 0.0}], [sample(1, prompt=prompt)])
    assert page.text.count(prompt) == 1


def test_the_gold_answer_stands_where_the_verifier_is_given_something_else(tmp_path):
    reference = {"dataset": "chain_sum", "settings": {"max_terms": 4}, "index": 17}
    rows = [sample(1, reference=reference, gold="-396"), sample(1, example="modsum/heldout/4", reference=[7, 8])]
    page = run_of(tmp_path, [{"step": 1, "train/reward": 0.0}], rows)
    assert "-396" in page.text
    assert "max_terms" not in page.text
    assert "[7, 8]" in page.text
    assert [x["gold"] for x in page.samples] == ["-396", "[7, 8]"]


def test_changes_of_a_run_that_went_on_are_listed_and_marked(tmp_path):
    jsonl.append(tmp_path / "changes.jsonl", [{"step": 40, "changes": ["training.num_steps: 40 -> 60"]}])
    jsonl.append(tmp_path / "changes.jsonl", [{"step": 50, "changes": ["x"], "code": ["mine.py (config.reward)"]}])
    jsonl.append(tmp_path / "changes.jsonl", [{"step": 50, "changes": ["y"]}])
    page = run_of(tmp_path, [{"step": 1, "train/reward": 0.0}])
    assert "after step 40: training.num_steps: 40 -> 60" in page.text
    assert "after step 50 mine.py (config.reward) was edited" in page.text
    assert page.pieces["curves"]["changes"] == [[40, "training.num_steps: 40 -> 60"], [50, "x, y"]]


def test_turns_and_lag_have_panels_where_there_are_any():
    titles = lambda **row: {panel.title for panel in panels([{"step": 1, "train/turns": 1, "train/lag": 0} | row])}  # noqa: E731
    assert titles() == set()
    assert titles(**{"train/turns": 1.5}) == {"Turns"}
    assert titles(**{"train/lag": 2.0}) == {"Lag of the samples"}


def test_whole_episodes_are_there_with_turns_calls_observations_and_terms_of_the_reward(tmp_path):
    spans = [
        {"author": "policy", "text": "<2*3>", "tokens": 5, "trained": True},
        {"author": "env", "text": f"6|{HOSTILE}", "tokens": 2, "trained": False},
        {"author": "policy", "text": "####6", "tokens": 6, "trained": True},
    ]
    calls = [{"turn": 0, "tool": "calculator", "outcome": "timed_out", "characters": 2}]
    terms = {"score": 1.0, "tool_calls": -0.125}
    row = sample(3, "train", spans=spans, calls=calls, terms=terms, reward=0.875, turns=2, answer="6")
    rows = [{"step": step, "tool/calculator/episodes": step / 4, "tool/calculator/calls": 1} for step in (1, 3)]
    page = run_of(tmp_path, rows, [row, sample(3, "train", spans=None, calls=[], terms=None)])
    assert page.samples[0]["spans"] == spans
    assert page.samples[0]["calls"] == calls
    assert page.samples[0]["terms"] == terms
    assert not {"spans", "calls", "terms"} & page.samples[1].keys()
    assert "0.25 → 0.75" in page.text
    assert {"Use of tools"} <= {panel.title for panel in panels(rows)}


def test_a_legend_has_as_many_columns_as_there_is_room_for():
    assert [curves.legend_columns(["loss"] * n, 9, 270) for n in (1, 2, 5, 9)] == [1, 2, 5, 5]
    long = ["train: 124", "held-out (greedy): 124", "right: 124", "wrong: 124"]
    assert [curves.legend_columns(long, 9, width) for width in (600, 270, 100)] == [4, 2, 1]
