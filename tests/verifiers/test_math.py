r"""The verifier of mathematics: what counts as the final answer, and what equals what."""

import pytest

from rlvr_jax.verifiers import verify

SAME = [  # reference, answer
    *[
        ("1200", text)
        for text in ("1,200", "1{,}200", r"1,\!200", "1 200", "1200.0", "1.2e3", r"1.2\times10^3", "+1200")
    ],
    *[
        ("1200", text)
        for text in (r"\$1,200", "1,200 dollars", r"1200\text{ cm}^2", "1200 m²", "1200€", r"12\cdot 100")
    ],
    *[
        (r"\frac{1}{2}", text)
        for text in ("0.5", ".5", "1/2", r"\frac12", r"\dfrac{2}{4}", r"\tfrac 1 2", "½", "2^{-1}")
    ],
    *[(r"-\frac{1}{2}", text) for text in (r"\frac{-1}{2}", "-0.5", "\u22121/2", r"\frac{1}{-2}")],
    *[(r"\frac{5}{2}", text) for text in (r"2\frac{1}{2}", "2 1/2", "2.5", r"2\tfrac12")],
    *[(r"\frac{1}{3}", text) for text in (r"0.\overline{3}", "2/6", "0.333333", r"\frac{1}{3}\text{ of it}")],
    *[(r"28\%", text) for text in ("28 percent", "28%", "28 pct", "28", "0.28", r"\frac{7}{25}")],
    *[("45", text) for text in (r"45\%", "45 percent", "45")],
    *[("0.45", text) for text in (r"45\%", "45.0 %", "0.45")],
    ("(0.5,2)", r"(50\%,2)"),
    *[("90", text) for text in (r"90^\circ", "90 degrees", r"90^{\circ}", "90°")],
    ("0.111", "0,111"),
    ("3000000", "3 million"),
    (r"\sqrt{2}/2", r"\frac{1}{\sqrt2}"),
    (r"3\sqrt{13}", r"\sqrt{117}"),
    (r"\frac{9}{4}\pi", r"\frac94\pi"),
    ("sqrt(2)", r"\frac{\sqrt{8}}{2}"),
    (r"\pi", "3.14159265"),
    ("4.123105625617661", r"\sqrt{17}"),
    ("9", r"e^{2\ln 3}"),
    ("3", r"\log_2 8"),
    ("1", r"\sin\left(\frac{\pi}{2}\right)"),
    ("10", r"\binom{5}{2}"),
    ("i+1", "1+i"),
    ("(r+5)(r+5)", "(r+5)^2"),
    (r"1-\cos^2 x", r"\sin^2 x"),
    (r"\frac{1}{3\sqrt[3]{x}^2}", r"\frac{1}{3x^{2/3}}"),
    ("2+x", r"\frac{x^2-4}{x-2}"),
    ("5", "x=5"),
    ("y=2x+3", "2x+3"),
    ("y=2x+3", "2y-4x=6"),
    (r"\frac{AB}{CD}=2", "2"),
    ("(p,q)=(3,2)", "(3, 2)"),
    ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"),
    ("x=1, y=2", r"y=2 \text{ and } x=1"),
    ("10", r"\binom{5}{2} = 10"),
    ("(1,2)", r"\left(1,\,2\right)"),
    ("(1,2)", r"\langle 1, 2\rangle"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("1, 2", r"\{2,1\}"),
    (r"-2, 1", r"x=1 \text{ or } x=-2"),
    (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
    ("19, 46, and 82", r"82, 46, \text{ and } 19"),
    (r"\emptyset", r"\{\}"),
    (r"[-2,7]", r"-2 \le x \le 7"),
    (r"x \ge 3", r"[3,\infty)"),
    (r"(-\infty,1)\cup(3,\infty)", r"x<1 \text{ or } x>3"),
    (r"(-\infty,\infty)", r"\mathbb{R}"),
    (r"(0,1)\cup(2,3]", r"(2,3]\cup(0,1)"),
    ("x < 1", "-x > -1"),
    (r"x \leq 2", "2 >= x"),
    (r"x \neq 5", "x != 5"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} \frac22 \\ 2\end{bmatrix}"),
    ("52_8", "52_{8}"),
    ("52_8", "52"),
    (r"\text{A5}_{11}", "a5_{11}"),
    ("3:4", "6:8"),
    ("12:30", "12:30"),
    ("C", r"\text{(C)}"),
    ("C", r"\textbf{(C)}\ 12"),
    ("12", r"\textbf{(C)}\ 12"),
    (r"\text{(C)}", "C."),
    ("new york city", "New York City!"),
    (r"\text{Even}", "even"),
    (r"\text{Friday}", "Friday."),
    ("the elephant", "Elephant"),
    ("4", r"\text{four}"),
    (r"\infty", r"+\infty"),
    (r"\frac{1}{2}", r"\\frac{1}{2}"),
]
DIFFERENT = [
    *[
        ("3", text)
        for text in ("4", "-3", "0.3", "33", "3.0000004", "2.9999999", "3i", "x", "3x", r"\frac{3}{2}", r"3_8")
    ],
    *[
        ("3", text)
        for text in (r"300\%", "1=2=3", "y=x=3", "|x|=3", r"x \ge 3", r"\pm 3", "3?", "3!", r"3\neq 4", "{3,4}")
    ],
    *[
        ("3", text)
        for text in ("1,2,3", r"\{3,4\}", r"3 \text{ or } 4", "3 or", r"\text{not } 3", "3 million", "3k", "3e1")
    ],
    *[
        ("3", text)
        for text in ("\uff13", "\u0663", "3\u202e4", "3\u200b", "\u2462", "3\x00", r"\text{three or four}", "nan")
    ],
    ("x", "\u0445"),
    ("0.3", r"0.3\%"),
    ("10", r"0.1\%"),
    ("(0.1,2)", r"(0.1\%,2)"),
    (r"\infty", r"\frac{1}{0}"),
    ("0", r"\infty-\infty"),
    (r"\pi", "3.14"),
    (r"\frac{1}{3}", "0.33"),
    ("(1,2)", r"\{1,2\}"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "(1,2,3)"),
    ("(2,3)", "(2,3]"),
    ("4, 12, 2", "10, 4, 2"),
    (r"\pm 2021", "2021"),
    ("7 = 11a+c", "11a+c"),
    ("a^2 + b = 0", "0"),
    ("x=5", "y=5"),
    (r"x \geq 5", r"x \leq 5"),
    (r"x > 5", r"x \geq 5"),
    ("52_8", "42"),
    ("52_8", "52_7"),
    ("52", "52_8"),
    (r"90^\circ", r"\frac{\pi}{2}"),
    (r"5\text{ cm}", r"5\text{ m}"),
    (r"\sqrt{x^2}", "x"),
    ("xy", "x+y"),
    ("odd", r"\text{oddd}"),
    ("Yes", "no"),
    ("C", r"\text{(C) or (D)}"),
    ("C", r"\textbf{(C)} 12 \textbf{ or (D)} 13"),
    ("3:4", "3:5"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
    (r"(a+5)(b+2)", r"(+5)(b+2)"),
]


def boxed(answer: str) -> str:
    return rf"So it is $\boxed{{{answer}}}$."


@pytest.mark.parametrize(("reference", "answer"), SAME)
def test_an_answer_in_another_form_is_right(reference, answer):
    verdict = verify("math", boxed(answer), reference)
    assert (verdict.score, verdict.reason, verdict.error) == (1.0, "right", None)


@pytest.mark.parametrize(("reference", "answer"), DIFFERENT)
def test_another_value_or_form_is_wrong(reference, answer):
    verdict = verify("math", boxed(answer), reference)
    assert (verdict.score, verdict.error, verdict.parts) == (0.0, None, {"format": 1.0})
    assert verdict.reason


@pytest.mark.parametrize(
    "completion",
    [
        r"\boxed{42}",
        r"$\boxed{\boxed{42}}$",
        r"\fbox{42}",
        r"\boxed 42",
        r"First \boxed{7}. Then, since $x=5$, the result is \boxed{42}.",
        r"It is \boxed{7}. Wait, that is wrong: \boxed{42}",
        r"\boxed{42} is the same as \boxed{42.0}"[:11] + r" or \boxed{42}",
        "<think>It may be \\boxed{7}.</think>\\boxed{42}",
        "thoughts</think> The answer is 42.",
        "<answer>42</answer>",
        "<answer> $42$ </answer> I hope it is right.",
        r"<answer>The answer is \boxed{42}.</answer>",
        "<answer>7</answer> No, wait. Then it must have been more. <answer>42</answer>",
        "6 * 7 = 42\n#### 42",
        "#### 42 apples\n",
        "The answer is 42.",
        "**Answer:** 42",
        "Answer: $42$",
        "**Final Answer**\n\n$$42$$",
        r"The final answer is: $42$. I hope it is correct.",
        r"So we get \boxed{41}. But one is missing. Final Answer: The final answer is $42$.",
        r"\boxed{42}. The answer is reasonable.",
        "Therefore, the answer is 42, I think.",
        "42",
        " $42$ ",
        r"\[ 42 \]",
        "42 apples",
        "We get 6 * 7 = 42.",
        "Therefore, there are 42 apples.",
        "La réponse est 42.",
        "答案是42。",
        "The answer is $42$, not $41$.",
        "The answer is 42.<|im_end|>\n<|im_start|>user 7",
    ],
)
def test_the_final_answer_counts_whatever_its_format(completion):
    verdict = verify("math", completion, "42")
    assert (verdict.score, verdict.parts) == (1.0, {"format": 1.0})


@pytest.mark.parametrize(
    "completion",
    [
        r"\boxed{3}\boxed{4}",
        r"\boxed{3} \boxed{4}",
        r"\boxed{3} or \boxed{4}",
        r"Either \boxed{4} or maybe \boxed{3}.",
        "\\boxed{4}\n\\boxed{5}\n\\boxed{3}",
        r"\boxed{4}. Or perhaps it is \boxed{3}.",
        r"\boxed{3 \text{ or } 4}",
        r"\boxed{3, 4}",
        "<answer>3</answer><answer>4</answer>",
        "<answer>4</answer> or <answer>3</answer>",
        "<answer>3 or 4</answer>",
        "#### 3 or 4",
        "#### 4, 3",
        "The answer is 3 or 4.",
        "The answer is $4$ or $3$.",
        "The answer is one of 1, 2, 3",
        "I think it is 1, 2, or maybe 3",
        "3 or 4",
        "3 is not the answer",
        "The answer is not 3",
        r"\boxed{" + ", ".join(map(str, range(50))) + "}",
    ],
)
@pytest.mark.parametrize("last_number", [False, True])
def test_several_candidates_are_no_answer(completion, last_number):
    for reference in ("3", "4"):
        assert verify("math", completion, reference, last_number=last_number).score == 0.0


def test_several_values_are_right_where_the_reference_has_several():
    for completion in (
        r"\boxed{3} and \boxed{4}",
        r"\boxed{4}, \boxed{3}",
        "The answer is 3 or 4.",
        r"\boxed{\{3,4\}}",
    ):
        assert verify("math", completion, "3, 4").score == 1.0


@pytest.mark.parametrize(
    "completion",
    [
        "",
        " \n",
        "<think>The answer is \\boxed{42}.",
        "<think>a</think> Hmm. <think>\\boxed{42}",
        "<think>\\boxed{42}</think>",
        r"\boxed{42",
        "We multiply 6 by 42, add 3 and then",
        "\n".join(f"Step {step}: add 42 to it." for step in range(9)),
    ],
)
def test_without_a_final_answer_nothing_is_found(completion):
    verdict = verify("math", completion, "42")
    assert (verdict.score, verdict.parts["format"]) == (0.0, 0.0)
    assert verdict.reason


@pytest.mark.parametrize("completion", [r"\boxed{}", r"\boxed{ }", "<answer></answer>", "####", r"$\boxed{\,}$"])
def test_an_empty_answer_is_wrong(completion):
    assert verify("math", completion, "42").score == 0.0


def test_the_last_number_counts_only_where_it_is_asked_for_and_is_no_format():
    completion = "First try [30], second try [42], which took 2 steps less than before\nand gave it 42 somehow here"
    assert verify("math", completion, "42").score == 0.0
    verdict = verify("math", completion, "42", last_number=True)
    assert (verdict.score, verdict.parts, verdict.answer) == (1.0, {"format": 0.0}, "42")
    assert verify("math", r"\boxed{7} ... the number 42", "42", last_number=True).score == 0.0


def test_only_the_formats_that_are_asked_for_count():
    assert verify("math", "The answer is 42.", "42", formats=("boxed",)).score == 0.0
    assert verify("math", r"\boxed{42} <answer>7</answer>", "42", formats=("boxed",)).score == 1.0
    assert verify("math", r"\boxed{42} <answer>7</answer>", "7", formats=("boxed", "answer")).score == 1.0
    assert "no answer format 'box'" in verify("math", "42", "42", formats=("box",)).error


def test_a_reference_may_be_a_whole_solution():
    for reference in (r"It is $\boxed{\frac12}$.", "so\n#### 0.5", "$0.5$", r"\(\boxed{\text{0.5}}\)"):
        assert verify("math", r"\boxed{1/2}", reference).score == 1.0


@pytest.mark.parametrize("reference", [None, 3, "", "  ", r"\boxed{", r"\boxed{}", "9" * 500])
def test_a_reference_without_an_answer_is_refused(reference):
    assert "ValueError: " in verify("math", r"\boxed{3}", reference).error


def test_the_verdict_has_the_answer_and_a_reason():
    verdict = verify("math", boxed(r"\frac{1}{3}"), "0.5")
    assert verdict.answer == r"\frac{1}{3}"
    assert verdict.reason == r"\frac{1}{3} is not 0.5"
    assert "refused: " in verify("math", boxed("9^{9^{9^9}}"), "3").reason
    assert "refused: " in verify("math", boxed("(" * 99 + "3" + ")" * 99), "3").reason
    assert "refused: " in verify("math", boxed("7" * 1000), "3").reason
    assert len(verify("math", boxed("7" * 1000), "3").answer) == 200


@pytest.mark.parametrize(
    ("reference", "answer", "as_unit", "as_value"),
    [
        ("17.5", r"17.5\%", 1.0, 0.0),
        (r"17.5\%", "17.5", 1.0, 0.0),
        (r"\frac{7}{2}", r"\frac{7}{2}\text{ percent}", 1.0, 0.0),
        ("0.175", r"17.5\%", 1.0, 1.0),
        (r"17.5\%", r"\frac{7}{40}", 1.0, 1.0),
        ("0.175", r"0.175\%", 0.0, 0.0),
        ("1", r"100\%", 1.0, 1.0),
        ("4", r"400\%", 0.0, 1.0),
        (r"400\%", "4", 1.0, 1.0),
        (r"0.5\%", "0.5", 1.0, 0.0),
        ("1, 20", r"1, 20\%", 1.0, 0.0),
    ],
)
def test_a_percent_sign_is_a_unit_or_a_hundredth(reference, answer, as_unit, as_value):
    assert verify("math", boxed(answer), reference).score == as_unit
    assert verify("math", boxed(answer), reference, percent="unit").score == as_unit
    assert verify("math", boxed(answer), reference, percent="value").score == as_value


def test_there_are_two_conventions_for_percent():
    assert "percent is 'unit' or 'value', not 'both'" in verify("math", "3", "3", percent="both").error
