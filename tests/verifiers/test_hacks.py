"""Detectors of programs that aim at their tests: on labelled programs, and as parts of a verdict."""

import ast
import re
from pathlib import Path

import pytest

from experiments.benchmarks.hack_report import canonical, labelled, table
from rlvr_jax.learner.rewards import reward
from rlvr_jax.verifiers import hacks, verify
from rlvr_jax.verifiers.hacks import DETECTORS, found_in, known_tests
from rlvr_jax.verifiers.syntax import key
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import episode, grouped

PAGE = Path(__file__).parents[2] / "docs" / "rewards.md"
ADD = {
    "type": "function",
    "entry_point": "add",
    "cases": [{"args": [1, 2], "expected": 3}, {"args": [3, 4], "expected": 7}, {"args": [9, 9], "expected": 18}],
}


@pytest.fixture(scope="module")
def programs():
    return list(labelled())


def test_the_table_of_the_page_is_what_the_command_prints(programs):
    page = PAGE.read_text(encoding="utf-8")
    for row in table(programs, []):
        counts = [row["hacks"], row["honest"], f"{row['precision']:.2f}", f"{row['recall']:.2f}"]
        wrong = ["; ".join(row["false alarms"]), "; ".join(row["missed"])]
        assert f"| `{row['detector']}` | " + " | ".join(map(str, counts + wrong)) + " |" in page
        assert min(row["hacks"], row["honest"]) >= 12
        assert min(row["precision"], row["recall"]) >= 0.85


def test_no_program_is_labelled_twice(programs):
    keys = [(x.detector, x.label) for x in programs]
    assert len(set(keys)) == len(keys)
    assert len({(x.detector, x.program, str(x.tests)) for x in programs}) == len(keys)


def test_a_detector_is_right_about_the_hacks_of_the_others_that_are_not_of_its_kind(programs):
    """Each finds its own kind: on the other files' honest programs there are few alarms."""
    alarms = [
        (name, x.detector, x.label)
        for x in programs
        for name, detector in DETECTORS.items()
        if not x.is_hack and name != x.detector and detector(ast.parse(x.program), x.tests)
    ]
    assert len(alarms) <= 0.01 * len(programs) * len(DETECTORS), alarms


def test_published_solutions_are_hardly_ever_taken_for_hacks(data_sets):
    found = [found_in(program, tests)["any"] for program, tests in canonical(data_sets)]
    assert len(found) > 50
    assert sum(found) <= 0.02 * len(found)


@pytest.mark.parametrize("text", ["def f(:", "x = " + "(" * 5000, "", "def f(x): return x.a.b()()[0]\nf = 3\ndel f"])
def test_no_program_makes_them_raise(text):
    for reference in (ADD, {"type": "stdio", "cases": [{"stdin": "1", "stdout": "2"}]}):
        assert set(found_in(text, known_tests(reference)).values()) <= {0.0}


NESTED = "[" * 150 + "1" + "]" * 150
OTHERS = [f"{i}: {NESTED}, {NESTED!r}: {i}" for i in range(20)]


@pytest.mark.parametrize(
    "line",
    [
        f"if x == 0x{'f' * 4000}: return 1",
        f"if x == {NESTED}: return 1",
        f"if x == {NESTED.replace('[', '(').replace(']', ',)')}: return {NESTED}",
        f"if x == {{1: [0x{'f' * 4000}], 'a': {{2, 3}}}}: return {{}}",
        f"raise NotImplementedError(0x{'f' * 4000})",
        f"y = {{{', '.join(OTHERS)}}}",
    ],
)
def test_a_harmless_line_of_a_hack_hides_nothing(line):
    hack = "def add(a, b):\n    if (a, b) == (3, 4): return 7\n    exit()\n"
    for reference in (ADD, {"type": "stdio", "cases": [{"stdin": "[[1]]\n5", "stdout": "[[1]]"}] * 50}):
        found = found_in(f"{hack}def f(x):\n    {line}\n", known_tests(reference))
        hits = ("early_exit", "special_case") if reference is ADD else ()
        assert {name for name, value in found.items() if value} == {*hits, *["any"] * bool(hits)}


@pytest.mark.parametrize(
    "program",
    [
        "y = 2\n" * 40_000,
        f"x = {'9' * 5000}",  # the sandbox sets no limit of digits
        f"x = f{'.write_text()' * 1500}",
        "x = '\ud800'",
        f"x = {'.'.join('a' * 8000)}()",
        f"x = {'-' * 8000}1",
    ],
)
def test_a_program_that_can_not_be_read_is_not_clean(program):
    found = found_in(program, known_tests(ADD))
    assert (found["unreadable"], found["any"]) == (1, 1)


def test_a_detector_that_fails_leaves_the_others(monkeypatch):
    monkeypatch.setitem(DETECTORS, "test_edit", lambda *_: 1 / 0)
    found = found_in("def add(a, b):\n    exit()", known_tests(ADD))
    assert {name for name, value in found.items() if value} == {"early_exit", "unreadable", "any"}


def test_the_work_on_large_programs_is_bounded(monkeypatch):
    """By counts of keys that are made, one for each literal and each test."""
    made = []
    monkeypatch.setattr(hacks, "key", lambda x: made.append(x) or key(x))
    cases = [{"args": [str(i)], "expected": 1} for i in range(50)]
    tests = known_tests({"type": "function", "entry_point": "f", "cases": cases})
    for program in (
        "\n".join(f"if x == 'a{i}': y = 1" for i in range(300)),
        f"x = {{{', '.join(f'{i}: 1' for i in range(300))}}}",
    ):
        made.clear()
        assert found_in(program, tests)["special_case"] == 0
        assert len(made) <= 3 * 300 + 4 * 50


def test_they_are_parts_of_a_verdict_on_demand():
    program = "def add(a, b):\n    if (a, b) == (3, 4): return 7\n    try: return 3\n    except: pass\n"
    parts = verify("code", program, ADD, hacks=True).parts
    assert {name for name, value in parts.items() if name.startswith("hack/") and value} == {
        "hack/special_case",
        "hack/swallowed_exception",
        "hack/any",
    }
    assert {name for name in parts if name.startswith("hack/")} == {
        "hack/any", "hack/unreadable", *(f"hack/{name}" for name in DETECTORS),
    }  # fmt: skip
    assert not any(name.startswith("hack/") for name in verify("code", program, ADD).parts)
    assert verify("code", "", ADD, hacks=True).parts["hack/any"] == 0.0


@pytest.mark.parametrize(
    ("program", "stages", "visible"),
    [
        ("", 0, 0.0),
        ("def add(a, b:", 0, 0.0),
        ("def sub(a, b):\n    return a - b", 1, 0.0),
        ("def add(a, b):\n    raise ValueError", 1, 0.0),
        ("def add(a, b):\n    return 0", 2, 0.0),
        ("def add(a, b):\n    return 3 if a == 1 else 0", 2, 0.5),
        ("def add(a, b):\n    return a + b if a < 9 else 0", 3, 1.0),
        ("def add(a, b):\n    return 18 if a == 9 else 0", 2, 0.0),
        ("def add(a, b):\n    return a + b", 4, 1.0),
    ],
)
def test_partial_credit_by_stage(program, stages, visible):
    verdict = verify("code", program, ADD, score="stage", visible=2)
    assert (verdict.score, verdict.parts["stage"], verdict.parts["visible"]) == (stages / 4, stages / 4, visible)
    assert verdict.parts["passed"] == pytest.approx((2 * visible + verdict.parts["hidden"]) / 3)


def test_a_script_runs_if_it_ends_and_prints():
    cases = {"type": "stdio", "cases": [{"stdin": "1\n", "stdout": "1\n"}, {"stdin": "2\n", "stdout": "4\n"}]}
    for program, stage in (
        ("print(int(input()) + )", 0),
        ("1 / 0", 1),
        ("print(7)", 2),
        ("print(int(input()) ** 2)", 3),
    ):
        assert verify("code", program, cases, score="stage").score == pytest.approx(stage / 3)


def test_stages_of_tests_that_run_as_code():
    tests = ["assert add(1, 2) == add(2, 1)", "assert add(1, 1) == 2"]
    for program, stage in (("def add(a, b): return a - b", 2), ("def add(a, b): return a + b + 1", 3)):
        verdict = verify("code", program, {"type": "asserts", "tests": tests}, score="stage", visible=1)
        assert verdict.score == stage / 4


def test_options_of_another_kind_are_refused():
    for options, wrong in (({"score": "stages"}, "stages"), ({"visible": -1}, "-1")):
        assert re.search(wrong, verify("code", "def add(): 0", ADD, **options).error)


def test_the_functions_of_the_page_gate_clip_and_follow_a_schedule(tmp_path, monkeypatch):
    text = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.M)
    (terms,) = re.findall(r"^    --config\.reward=\"(.*terms\.py.*)\"$", text, re.M)
    (tmp_path / "terms.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    verdicts = [Verdict(x, {"hack/any": hack, "passed": 0.5 + x / 2}) for x in (0.0, 1.0) for hack in (0.0, 1.0)]
    groups = grouped(verdicts, [episode(4 + i, version=60 * i) for i in range(4)], 4)
    found = reward(ast.literal_eval(terms), groups)
    assert found.judged.all()
    assert found.terms["terms.py:honest"].tolist() == [0.5, 0.0, 1.0, 0.0]
    assert found.terms["terms.py:short"].tolist() == pytest.approx([0, 0, 0.1 * (1 - 6 / 512), 0.1 * (1 - 7 / 512)])
    assert found.terms["terms.py:late"].tolist() == pytest.approx([0, -0.3, 0, -0.5])
    assert found.terms["terms.py:best"].tolist() == pytest.approx([0, 0, 0.1, 0])
