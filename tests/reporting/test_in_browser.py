"""The report in a browser: hover values, logarithmic axes, runs over each other, the browser of samples.

make test-browser, or pytest --browser.
"""

import json
import math

import pytest

from experiments.benchmarks.browser import browser
from rlvr_jax.reporting import jsonl
from rlvr_jax.reporting.comparison import write_comparison
from rlvr_jax.reporting.report import write_report
from tests.reporting.test_report import HOSTILE, sample, typical_rows

pytestmark = pytest.mark.browser
COUNT = 130  # training samples


def training_samples():
    spans = [
        {"author": "policy", "text": "<2*3>", "tokens": 5, "trained": True},
        {"author": "env", "text": f"6|{HOSTILE}", "tokens": 2, "trained": False},
        {"author": "policy", "text": "####6", "tokens": 6, "trained": True},
    ]
    calls = [{"turn": 0, "tool": "calculator", "outcome": "timed_out", "characters": 2}]
    rows = [
        sample(
            1 + i // 10, "train", example=f"modsum/train/{i // 2}", task=f"t{i % 2}", completion=f"completion {i}.",
            reward=i / 100, score=float(i % 4 == 0), finish_reason="length" if i % 5 == 0 else "stop",
        )
        for i in range(COUNT - 2)
    ]  # fmt: skip
    terms = {"score": 1.0, "tool_calls": -0.125}
    episode = sample(3, "train", spans=spans, calls=calls, terms=terms, reward=0.875, score=0.5, turns=2)
    return [*rows, episode, sample(3, "train", completion=HOSTILE, prompt=HOSTILE, error="slow", reward=None)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, shift in (("a", 0.0), ("b", 0.25)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"seed": 5, "tasks": {"modsum": {"weight": 1.0}}}))
        rows = [
            row | {"train/reward": row["train/reward"] * (1 - shift)} if row["step"] else row for row in typical_rows()
        ]
        rows[30] |= {"train/grad_norm": math.nan}
        jsonl.append(folder / name / "metrics.jsonl", rows)
        jsonl.append(folder / name / "samples.jsonl", training_samples())
        write_report(folder / name)
    write_comparison({name: folder / name for name in ("a", "b")}, folder / "both.html")
    return folder


@pytest.fixture(scope="module")
def window():
    with browser() as page:
        yield page


@pytest.fixture
def page(window, folder):
    """The report of one run."""
    return opened(window, folder / "a" / "report.html")


def opened(window, path):
    window.asked.clear()
    window.said.clear()
    window.open(path)
    window.wait_for("document.querySelectorAll('.sample').length && document.querySelectorAll('figure svg').length")
    return window


def text_of(page, selector):
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


def count(page, selector):
    return page.evaluate(f"document.querySelectorAll({json.dumps(selector)}).length")


def change(page, **values):
    """Sets controls of the browser of samples, and waits for the list that follows."""
    for name, value in values.items():
        page.evaluate(
            "updated = false;"
            "document.getElementById('samples-of-runs')"
            ".addEventListener('updated', () => { updated = true; }, {once: true});"
            f"document.getElementById('{name.replace('_', '-')}').value = {json.dumps(value)};"
            f"document.getElementById('{name.replace('_', '-')}').dispatchEvent(new Event('change'))"
        )
        page.wait_for("updated")
    return text_of(page, "#found")


def hover(page, panel, share):
    """The text beside the pointer, which is at this share of the width of a panel's plot."""
    page.evaluate(
        f"svg = document.querySelector('[data-panel={json.dumps(panel)}] svg'); box = svg.getBoundingClientRect();"
        "svg.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, clientY: box.top + 60,"
        f"clientX: box.left + box.width * (58 + {share} * (960 - 70)) / 960}}))"
    )
    return text_of(page, f"[data-panel={json.dumps(panel)}] .tip")


REWARD = "Reward and held-out accuracy"


def test_the_page_asks_for_nothing_but_itself_and_its_scripts_complain_about_nothing(page, folder):
    assert page.asked == [(folder / "a" / "report.html").as_uri()]
    assert page.said == []


def test_values_stand_beside_the_pointer_with_their_intervals(page):
    text = hover(page, REWARD, 0.5)
    assert "step 30" in text
    assert f"train reward {1 - math.exp(-30 / 9):.3g}" in text
    assert "held-out accuracy (greedy) 0.5 (0.429 to 0.545)" in text
    assert "at step 30" in hover(page, REWARD, 0.53).replace("step 32", "")
    page.evaluate("svg.dispatchEvent(new PointerEvent('pointerleave'))")
    assert page.evaluate(f"document.querySelector('[data-panel=\"{REWARD}\"] .tip').hidden")


def test_a_panel_and_all_panels_become_logarithmic_and_linear_again(page):
    scales = "[...document.querySelectorAll('figure svg')].map(svg => svg.dataset.scale).join()"
    first = page.evaluate(scales)
    assert first.split(",").count("log") == 1  # of the log-prob gap
    page.evaluate(f"document.querySelector('[data-panel=\"{REWARD}\"] button.log').click()")
    assert page.evaluate(scales).split(",").count("log") == 2
    before = page.evaluate("document.querySelector('path.curve').getAttribute('d')")
    page.evaluate("document.getElementById('all-linear').click()")
    assert page.evaluate(scales).split(",").count("log") == 0
    assert page.evaluate("document.querySelector('path.curve').getAttribute('d')") != before
    page.evaluate("document.getElementById('all-log').click()")
    assert page.evaluate(scales).split(",").count("linear") <= 2  # the stack of times, and a share that is always 0
    steps = page.evaluate("document.querySelector('path.curve').getAttribute('d')")
    page.evaluate("document.getElementById('log-steps').click()")
    assert page.evaluate("document.querySelector('path.curve').getAttribute('d')") != steps
    assert "NaN" not in page.evaluate("document.getElementById('curves-of-runs').innerHTML")


def test_a_position_on_a_logarithmic_axis_is_that_of_the_logarithm(page):
    for log, value, expected in ((False, 5.5, 50.0), (True, 10**0.5, 50.0), (True, 0.0, 0.0), (True, 10.0, 100.0)):
        found = page.evaluate(f"axis({str(log).lower()}, [1, 10], 0, 100)({value})")
        assert abs(found - expected) < 1e-9
    ticks = [float(x) for x in page.evaluate("ticks(true, [1e-4, 1e4], 9).join()").split(",")]
    assert ticks == pytest.approx([10.0**i for i in range(-4, 5)])
    assert page.evaluate("ticks(false, [0, 60], 6).join()") == "0,10,20,30,40,50,60"


def test_any_metric_can_be_drawn(page):
    figures = count(page, "figure")
    page.evaluate(
        "c = document.getElementById('metric'); c.value = 'custom/thing'; c.dispatchEvent(new Event('change'))"
    )
    assert count(page, "figure") == figures + 1
    assert "30" in text_of(page, "[data-panel='custom/thing'] .legend")


def test_values_that_are_not_finite_are_marked(page):
    assert "not finite (1)" in text_of(page, "[data-panel='Gradient norm'] .legend")
    assert count(page, "[data-panel='Gradient norm'] .lost") == 1


def test_pages_of_samples(page):
    assert text_of(page, "#found") == f"{COUNT} of {COUNT} samples"
    assert count(page, ".sample") == 50
    page.evaluate("document.getElementById('next').click()")
    page.wait_for("document.querySelector('.sample').textContent.includes('completion 50.')")
    page.evaluate("document.getElementById('next').click()")
    page.wait_for("document.getElementById('next').disabled")
    assert count(page, ".sample") == COUNT - 100


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"by_task": "t1"}, 64),
        ({"by_verdict": "right"}, 32),
        ({"by_verdict": "partly right"}, 1),
        ({"by_verdict": "unjudged"}, 1),
        ({"by_finish_reason": "length"}, 26),
        ({"least_step": "3", "most_step": "4"}, 22),
        ({"least_reward": "1"}, 28),
        ({"least_reward": "0.1", "most_reward": "0.2", "by_task": "t0"}, 6),
        ({"problem": "modsum/train/7"}, 2),
        ({"search": "COMPLETION 12"}, 9),
        ({"search": "<script>alert"}, 2),
        ({"search": "completion 7", "by_task": "t1"}, 6),
        ({"search": "nowhere"}, 0),
    ],
)
def test_filters(page, values, expected):
    assert change(page, **values) == f"{expected} of {COUNT} samples"
    assert count(page, ".sample") == min(expected, 50)


def test_samples_without_a_name_in_a_column_can_be_chosen(page):
    index = {
        "count": 3,
        "columns": {name: {"names": ["", "a"], "of": [0, 1, 0]} for name in ("run", "task", "split", "finish_reason")},
    }
    index["columns"] |= {name: [1, 1, 1] for name in ("step", "reward", "length", "score")}
    index["columns"] |= {"error": [0, 0, 0], "example": {"names": [" x "], "of": [0, 0, 0]}}
    filters = dict.fromkeys(("run", "split", "finish_reason", "verdict", "problem"), "")
    filters |= dict.fromkeys(("step", "reward", "length"), (None, None)) | {"order": "as logged"}
    for task, expected in (("(none)", "0,2"), ("a", "1"), ("", "0,1,2")):
        call = f"chosen({json.dumps(index)}, {json.dumps(filters | {'task': task, 'problem': 'x'})}).join()"
        assert page.evaluate(call) == expected


def test_samples_are_ordered_and_filters_cleared(page):
    change(page, order="highest reward", by_task="t1")
    assert "completion 127." in text_of(page, ".sample")
    page.evaluate("document.getElementById('clear').click()")
    page.wait_for(f"document.getElementById('found').textContent === '{COUNT} of {COUNT} samples'")
    assert "completion 0." in text_of(page, ".sample")


def test_a_whole_episode_opens_with_turns_calls_and_terms(page):
    change(page, by_verdict="partly right")
    page.evaluate("document.querySelector('.sample summary').click()")
    page.wait_for("document.querySelector('.sample .details')")
    text = text_of(page, ".sample .details")
    assert "policy · 5 tokens · calculator: timed_out" in text
    assert "observation · 2 tokens, not trained on" in text
    assert "reward 0.875 = score 1 + tool_calls -0.125" in text
    assert count(page, ".sample .own") == 2
    page.evaluate("document.querySelector('.same').click()")
    page.wait_for("document.getElementById('found').textContent.startsWith('2 of')")


def test_hostile_text_is_shown_with_visible_control_characters_and_runs_nothing(page):
    change(page, by_verdict="unjudged")
    page.evaluate("document.querySelector('.sample summary').click()")
    page.wait_for("document.querySelector('.sample .details')")
    assert "<script>alert(1)</script>" in text_of(page, ".sample .own")
    assert "\\x00\\x1b[2J\\x202e\\xd800 & end" in text_of(page, ".sample .own")
    assert page.evaluate("document.querySelectorAll('#samples-of-runs script, #samples-of-runs img').length") == 0
    assert page.said == []
    assert len(page.asked) == 1


def test_runs_lie_over_each_other_and_can_be_hidden(window, folder):
    page = opened(window, folder / "both.html")
    lines = f"[data-panel={json.dumps(REWARD)}] path.curve"
    assert count(page, lines) == 4
    text = hover(page, REWARD, 0.5)
    rewards = [(1 - math.exp(-30 / 9)) * share for share in (1, 0.75)]
    assert all(f"{name}, train reward {x:.3g}" in text for name, x in zip("ab", rewards, strict=True))
    page.evaluate("document.querySelector('label.run input').click()")
    assert count(page, lines) == 2
    assert text_of(page, "#found") == f"{2 * COUNT} of {2 * COUNT} samples"
    assert change(page, by_run="b") == f"{COUNT} of {2 * COUNT} samples"
    assert page.said == []
