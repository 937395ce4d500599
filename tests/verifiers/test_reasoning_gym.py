"""The verifier of reasoning-gym's problems: what counts as the answer, and what it does not let an answer do."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.tasks.reasoning_gym import problem
from rlvr_jax.verifiers.pool import Job, Pool
from rlvr_jax.verifiers.reasoning_gym import check_expression, verify

SUM = {"dataset": "chain_sum", "settings": {"seed": 0, "size": 10}, "index": 3}


def reference(name, index=3, **settings):
    return {"dataset": name, "settings": {"seed": 0, "size": 1000, **settings}, "index": index}


def gold(reference):
    return problem(reference)["answer"].strip()


def answered(answer, reference):
    return verify(f"<answer>{answer}</answer>", reference)


@pytest.mark.parametrize(
    ("completion", "score", "answer"),
    [
        ("<answer>{}</answer>", 1.0, "{}"),
        ("<answer>\n {} \n</answer>.", 1.0, "{}"),
        ("So <answer>7</answer>, no: <answer>{}</answer>", 1.0, "{}"),
        ("<answer>{}</answer><answer>7</answer>", 0.0, "7"),
        ("{}", 0.0, None),
        ("<answer>{}", 0.0, None),
        ("", 0.0, None),
        ("<answer></answer>", 0.0, ""),
    ],
)
def test_the_answer_stands_in_the_last_tags(completion, score, answer):
    right = gold(SUM)
    verdict = verify(completion.replace("{}", right), SUM)
    assert (verdict.score, verdict.error) == (score, None)
    assert verdict.answer == (answer if answer is None else answer.replace("{}", right))
    assert verdict.parts == {"format": float(answer is not None), "solved": score}


def test_other_answer_formats_are_found_too():
    right = gold(SUM)
    assert verify(f"\\boxed{{1}} so \\boxed{{{right}}}", SUM, answer_format="boxed").score == 1.0
    assert verify(f"\\boxed{{{right}", SUM, answer_format="boxed").answer is None
    assert verify(f"#### 1\n#### {right}\n", SUM, answer_format="hash").score == 1.0
    assert verify(right, SUM, answer_format="hash").answer is None
    with pytest.raises(ValueError, match="answer_format must be one of"):
        verify(right, SUM, answer_format="tags")


def test_partial_credit_is_the_packages_own_and_is_not_solved():
    verdict = answered(f"It is {gold(SUM)}", SUM)
    assert 0 < verdict.score < 1
    assert verdict.parts == {"format": 1.0, "solved": 0.0}


# Full marks, or code that runs, in the package's own scorers of version 0.1.25: (data set, answer)
HACKS = [
    ("puzzle24", "6*4*1*1"),
    ("game_of_life_halting", "anything"),
    ("game_of_life_halting", "[]"),
    ("coin_flip", "0"),
    ("coin_flip", "0/1"),
    ("complex_arithmetic", "nan"),
    ("polynomial_equations", "nan"),
    ("gsm_symbolic", "{} or 4"),
    ("number_sorting", "[{nans}]"),
    ("simple_integration", "Integral({integrand}, {variable})"),
    ("intermediate_integration", "integrate({integrand}, {variable})"),
    ("countdown", "{} + 0*1"),
]


@pytest.mark.parametrize(("name", "answer"), HACKS)
def test_answers_that_say_nothing_do_not_solve(name, answer):
    for index in range(4):
        entry = problem(reference(name, index))
        nans = ", ".join(["NaN"] * (entry["answer"].count(",") + 1))
        attempt = answer.replace("{}", entry["answer"]).replace("{nans}", nans)
        for key in ("integrand", "variable"):
            attempt = attempt.replace(f"{{{key}}}", str(entry["metadata"].get(key)))
        verdict = answered(attempt, reference(name, index))
        assert (verdict.parts["solved"], verdict.error) == (0.0, None), attempt
        assert verdict.score < 1


READS_ANSWERS = ["binary_matrix", "n_queens", "spiral_matrix", "string_insertion", "countdown", "puzzle24"]
READS_ANSWERS += ["simple_integration", "intermediate_integration", "bitwise_arithmetic", "number_sorting"]


@pytest.mark.parametrize("name", READS_ANSWERS)
def test_no_answer_runs_as_code(name, tmp_path):
    witness = tmp_path / "witness"
    payloads = [
        f"__import__('pathlib').Path({str(witness)!r}).touch()",
        f"[open({str(witness)!r}, 'w')]",
        f"x + exec(\"open({str(witness)!r}, 'w')\")",
        f"(lambda: open({str(witness)!r}, 'w'))()",
        f"sin(open({str(witness)!r}, 'w'))",
        f"().__class__.__base__.__subclasses__() or open({str(witness)!r}, 'w')",
        f'f"{{open({str(witness)!r}, chr(119))}}"',
    ]
    for payload in payloads:
        verdict = answered(payload, reference(name, 0))
        assert (verdict.parts["solved"], verdict.error) == (0.0, None)
    assert not witness.exists()
    assert answered(gold(reference(name, 0)), reference(name, 0)).score == 1.0


def test_other_right_answers_than_the_data_sets_own_are_right():
    assert (
        answered(
            "C - 1 + 1 + " + gold(reference("simple_integration")).removesuffix(" + C"), reference("simple_integration")
        ).score
        == 1.0
    )
    (a, b, c, d) = problem(reference("puzzle24"))["metadata"]["numbers"]
    assert answered(f"({gold(reference('puzzle24'))})", reference("puzzle24")).score == 1.0
    assert answered(f"{a}+{b}+{c}+{d}", reference("puzzle24")).score == float(a + b + c + d == 24)
    boards = problem(reference("n_queens"))["metadata"]["valid_answers"]
    assert [answered(board, reference("n_queens")).score for board in boards] == [1.0] * len(boards)
    assert answered(gold(reference("game_of_life_halting")).lower(), reference("game_of_life_halting")).score == 1.0


@pytest.mark.parametrize(
    "text", ["x**8/8 + C", "2*(4*x + 2)**(3/2)/3", "exp(x)*sin(x) - 1.5*cos(2*x)**4", "-x", "(x+1)**20"]
)
def test_formulas_may_be_given_to_sympy(text):
    assert check_expression(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9",
        "(9**99)**99",
        "x**1000000",
        "((((x+1)**50)**50)**50)",
        "2**(2**x)**99",
        "x.y",
        "x[0]",
        "f(x)",
        "exp(x, evaluate=False)",
        "factorial(9)",
        "Integral(x, x)",
        "'x'",
        "f'{x}'",
        "[x]",
        "x if x else x",
        "lambda: x",
        "x := 1",
        "x == x",
        "True",
        "1j",
        "__import__",
        "x; x",
        "",
        "(" * 500,
        "-" * 999 + "x",
        "x+" * 400 + "x" * 400,
        "\ud800",
    ],
)
def test_what_is_no_formula_or_too_large_is_kept_from_sympy(text):
    with pytest.raises(ValueError, match=r"not a formula|too large|characters"):
        check_expression(text)


JUNK_SETS = [
    "chain_sum",
    "prime_factorization",
    "game_of_life",
    "cryptarithm",
    "knights_knaves",
    "graph_color",
    "boxnet",
]
JUNK_SETS += [
    "simple_integration",
    "coin_flip",
    "rubiks_cube",
    "codeio",
    "tower_of_hanoi",
    "number_sorting",
    "time_intervals",
]


@given(
    st.sampled_from(JUNK_SETS),
    st.text(max_size=40)
    | st.text(alphabet="0123456789+-*/()[]{}:,.\"' eABCnN\n", max_size=40)
    | st.binary(max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_random_answers_get_a_verdict_and_never_an_exception(name, answer):
    text = answer if isinstance(answer, str) else answer.decode("utf-8", errors="replace")
    verdict = answered(text, reference(name, 0))
    assert verdict.error is None
    assert 0 <= verdict.score <= 1
    assert verify(text, reference(name, 0)).score == 0.0 or "<answer>" in text


def test_long_answers_and_large_exponents_are_refused_at_once():
    for answer in ("9" * 10**6, "1e999999999", "1E-999999999", "7." + "0" * 30_000, "[" * 10**5):
        for name in ("chain_sum", "coin_flip", "decimal_arithmetic", "power_function", "graph_color"):
            verdict = answered(answer, reference(name, 0))
            assert (verdict.parts["solved"], verdict.error) == (0.0, None)


def test_a_worker_process_gives_the_same_verdicts():
    jobs = [
        Job("reasoning_gym", f"<answer>{answer}</answer>", json.loads(json.dumps(each)))
        for each in (SUM, reference("graph_color"), reference("game_of_life"), reference("chain_sum", -1))
        for answer in ("{}", "12", gold(SUM))
    ]
    with Pool(0) as here, Pool(1, timeout=60.0, memory_bytes=2 << 30) as one:
        expected = here.judge(jobs)
        assert one.judge(jobs) == expected
    assert [verdict.score for verdict in expected[:3]] == [0.0, 0.0, 1.0]
    assert all(verdict.error.startswith("ValueError: the reference of") for verdict in expected[-3:])
