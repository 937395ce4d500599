"""Computer algebra in a bounded child: limits, order, threads, and a helper process that dies."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.mathematics import symbolic
from rlvr_jax.verifiers.mathematics.symbolic import SymbolicLimitError, symbolically_equal

EQUAL = [
    (r"\sum_{k=1}^{n} k", r"\sum_{j=1}^{n} j"),
    (r"\sum_{k=0}^{n-1} F_k F_{n-k-1}", r"\sum_{k=0}^{n-1} F_{n-k-1} F_k"),
    (r"\begin{pmatrix}7&10\\15&22\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^2"),
    (r"f(x) + 1", r"1 + f(x)"),
]
DIFFERENT = [
    (r"\sum_{k=1}^{n} k", r"\sum_{j=1}^{n} j + 1"),
    (r"\begin{pmatrix}7&10\\15&22\end{pmatrix}", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^3"),
    (r"f(x) + 1", r"1 - f(x)"),
    (r"\sum", r"}{"),
]
ENDLESS = [(r"\int_0^1 x dx", r"\int_0^1 x^{x^{x}}\sin(x^x) dx"), ("3", "9^{9^{9^{9}}}"), ("3", "1000000000!")]


@pytest.mark.parametrize(("reference", "answer"), EQUAL)
def test_equal_formulas_are_equal(reference, answer):
    assert symbolically_equal(reference, answer)
    assert verify("math", rf"\boxed{{{answer}}}", reference).score == 1.0


@pytest.mark.parametrize(("reference", "answer"), DIFFERENT)
def test_different_formulas_are_different(reference, answer):
    assert not symbolically_equal(reference, answer)
    assert verify("math", rf"\boxed{{{answer}}}", reference).score == 0.0


@pytest.mark.parametrize(("reference", "answer"), ENDLESS)
def test_what_has_no_end_is_stopped_and_the_helper_lives_on(reference, answer):
    symbolically_equal(*EQUAL[0])
    helper = symbolic._helper().process
    with pytest.raises(SymbolicLimitError, match="processor time"):
        symbolically_equal(reference, answer)
    assert symbolic._helper().process is helper
    assert helper.poll() is None
    assert symbolically_equal(*EQUAL[0])


def test_an_endless_answer_is_refused_in_the_verdict():
    verdict = verify("math", rf"\boxed{{{ENDLESS[0][1]}}}", ENDLESS[0][0])
    assert (verdict.score, verdict.error) == (0.0, None)
    assert verdict.reason.startswith("refused: more than 0.5 s of processor time")


@pytest.fixture
def fresh(monkeypatch):
    """A helper that has not been started, in place of the one of the other tests, which takes seconds to start."""
    helper = symbolic._Helper()
    monkeypatch.setattr(symbolic, "_helper", lambda: helper)
    yield helper
    helper.stop()


def test_a_sum_is_no_answer_where_the_reference_has_none(fresh):
    assert verify("math", r"\boxed{\sum_{k=1}^{2} k}", "3").score == 0.0
    assert fresh.process is None, "the helper was asked"


def test_a_helper_that_was_killed_is_started_again():
    assert symbolically_equal(*EQUAL[0])
    process = symbolic._helper().process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert symbolically_equal(*EQUAL[0])
    assert symbolic._helper().process.pid != process.pid


def test_threads_share_the_helper_and_get_their_own_answers():
    answers: dict[int, bool] = {}
    pairs = [(EQUAL if index % 2 else DIFFERENT)[index // 2 % 3] for index in range(12)]

    def ask(index: int) -> None:
        answers[index] = symbolically_equal(*pairs[index])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {index: bool(index % 2) for index in range(12)}


@pytest.mark.usefixtures("fresh")
def test_a_helper_that_does_not_start_is_an_error_of_the_verdict(monkeypatch, tmp_path):
    (tmp_path / "math_verify.py").write_text("raise ImportError('no such luck')\n")
    monkeypatch.syspath_prepend(tmp_path)
    verdict = verify("math", rf"\boxed{{{EQUAL[0][1]}}}", EQUAL[0][0])
    assert verdict.score == 0.0
    assert "helper process" in verdict.error
    assert "no such luck" in verdict.error


def test_the_helper_answers_line_by_line_and_ends_when_its_input_does():
    command = [sys.executable, "-m", "rlvr_jax.verifiers.mathematics.helper", str(1 << 30)]
    pairs = (EQUAL[3], DIFFERENT[2], EQUAL[0])
    questions = "".join(json.dumps(["formulas", *pair, 0.5]) + "\n" for pair in pairs)
    ran = subprocess.run(command, input=questions, capture_output=True, text=True, check=True)
    assert ran.stdout == '"equal"\n"different"\n"equal"\n'


def test_neither_sympy_nor_mpmath_is_imported_for_plain_answers():
    code = (
        "import sys\nfrom rlvr_jax.verifiers import verify\n"
        r"assert verify('math', r'\boxed{\frac{1}{2}}', '0.5').score == 1.0" + "\n"
        "print(*{'sympy', 'mpmath', 'math_verify'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize(
    ("completion", "reference", "score"),
    [
        (r"Hence it is $\boxed{\frac{3}{4}}$.", "0.75", 1.0),
        (r"Hence it is $\boxed{\frac{3}{5}}$.", "0.75", 0.0),
        ("So the sum is 3, and then 12 is what we look for", "12", 1.0),  # a last number: not found by our own rules
        (r"\boxed{4} is not the answer", "4", 1.0),  # not a thing that it looks at
        ("", "4", 0.0),
        ("<think>It is \\boxed{4}.", "4", 0.0),
        (r"\boxed{7}", r"We get $\boxed{7}$.", 1.0),
    ],
)
def test_math_verify_grades_by_its_own_rules(completion, reference, score):
    verdict = verify("math", completion, reference, grader="math_verify")
    assert (verdict.score, verdict.error, verdict.parts) == (score, None, {})


def test_math_verify_grades_marked_numbers_too():
    for completion, score in (("so\n#### 1,080", 1.0), ("#### 1080", 1.0), ("#### 18", 0.0)):
        verdict = verify("gsm8k", completion, "1,080", grader="math_verify")
        assert (verdict.score, verdict.error, verdict.parts) == (score, None, {})


def test_a_completion_that_math_verify_never_finishes_scores_zero(monkeypatch):
    monkeypatch.setattr(symbolic, "GRADER_CPU_SECONDS", 0.3)
    verdict = verify("math", r"\boxed{9^{9^{9^{9}}}}", "9", grader="math_verify")
    assert (verdict.score, verdict.error) == (0.0, None)
    assert "refused: more than 0.3 s" in verdict.reason


@pytest.mark.parametrize("kind", ["math", "gsm8k"])
def test_an_unknown_grader_or_an_option_that_it_ignores_is_an_error(kind):
    assert "grader is 'rlvr_jax' or 'math_verify', not 'sympy'" in verify(kind, "3", "3", grader="sympy").error
    assert "leave out percent" in verify(kind, "3", "3", grader="math_verify", percent="value").error
    assert "leave out formats" in verify("math", "3", "3", grader="math_verify", formats=("boxed",)).error
