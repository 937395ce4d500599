r"""What holds of the verifier of mathematics for all answers, and fuzzing of its parsers.

Answers are drawn as lists of tokens, between which LaTeX allows spaces and spacing commands.
"""

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.mathematics import expression, numeric
from rlvr_jax.verifiers.mathematics.latex import MAX_LENGTH, clean, refusal
from rlvr_jax.verifiers.mathematics.structure import read

BOUNDED = settings(derandomize=True, deadline=None, max_examples=100)
FUZZED = settings(BOUNDED, max_examples=300)
INTEGERS = st.integers(-999, 999)
NATURALS = st.integers(2, 99)


def numbers() -> st.SearchStrategy[list[str]]:
    """Tokens of a number."""
    return st.one_of(
        INTEGERS.map(lambda n: [str(n)]),
        st.tuples(INTEGERS, NATURALS).map(lambda p: [rf"\frac{{{p[0]}}}{{{p[1]}}}"]),
        st.tuples(INTEGERS, st.integers(1, 99)).map(lambda p: [f"{p[0]}.{p[1]:02d}"]),
        st.tuples(NATURALS, NATURALS).map(lambda p: [str(p[0]), rf"\sqrt{{{p[1]}}}"]),
        st.tuples(NATURALS, NATURALS).map(lambda p: [str(p[0]), "+", str(p[1]), r"\pi "]),
    )


def separated(parts: list[list[str]]) -> list[str]:
    return [token for index, part in enumerate(parts) for token in ([","] if index else []) + part]


def answers() -> st.SearchStrategy[list[str]]:
    """Tokens of an answer."""
    several = st.lists(numbers(), min_size=2, max_size=4).map(separated)
    return st.one_of(
        numbers(),
        several.map(lambda tokens: ["(", *tokens, ")"]),
        several.map(lambda tokens: [r"\{", *tokens, r"\}"]),
        st.tuples(numbers(), numbers()).map(lambda p: ["[", *p[0], ",", *p[1], ")"]),
        numbers().map(lambda tokens: ["x", "=", *tokens]),
        numbers().map(lambda tokens: ["x", r"\le", " ", *tokens]),
        st.tuples(numbers(), numbers()).map(lambda p: [*p[0], "x^2", "+", "(", *p[1], ")", "y"]),
        st.lists(numbers(), min_size=4, max_size=4).map(
            lambda c: [r"\begin{pmatrix}", *c[0], "&", *c[1], r"\\ ", *c[2], "&", *c[3], r"\end{pmatrix}"]
        ),
    )


SPACING = st.sampled_from(["", "", " ", r"\,", r"\!", r"\;", r"\ ", "~", r"\quad ", "  ", "\t", "\n"])
DELIMITERS = st.sampled_from(
    [("", ""), ("$", "$"), (r"\(", r"\)"), (r"\[ ", r" \]"), ("$$", "$$"), (r"\displaystyle ", "")]
)
SIZES = st.sampled_from([("", ""), (r"\left", r"\right"), (r"\bigl", r"\bigr"), (r"\big", r"\big")])


def boxed(answer: str) -> str:
    return rf"\boxed{{{answer}}}"


def score(answer: str, reference: str) -> float:
    verdict = verify("math", boxed(answer), reference)
    assert verdict.error is None
    return verdict.score


@BOUNDED
@given(answers(), answers(), st.booleans(), st.lists(SPACING, min_size=40, max_size=40), DELIMITERS, SIZES)
def test_spacing_delimiters_and_sizes_of_brackets_do_not_change_a_verdict(tokens, other, same, spaces, around, sizes):
    opening, closing = sizes
    spaced = "".join(
        space + (opening if token in ("(", "[", r"\{") else closing if token in (")", "]", r"\}") else "") + token
        for token, space in zip(tokens, spaces, strict=False)
    )
    spaced += "".join(tokens[len(spaces) :])
    reference = "".join(tokens if same else other)
    expected = score("".join(tokens), reference)
    assert score(around[0] + spaced + around[1], reference) == expected
    assert expected == 1.0 or not same


@BOUNDED
@given(
    answers(),
    st.sampled_from(["The answer is ${}$.", "#### ${}$", "<answer>\\({}\\)</answer>", "**Answer:** ${}$", "${}$"]),
)
def test_every_format_gives_the_same_verdict(tokens, template):
    answer = "".join(tokens)
    assert verify("math", template.replace("{}", answer), answer).score == 1.0


@BOUNDED
@given(answers(), answers())
def test_the_two_sides_may_be_exchanged(left, right):
    assert score("".join(left), "".join(right)) == score("".join(right), "".join(left))


NOTATIONS = ["7:45", "7:45 p.m.", "3:5", "a:b", "0:4", "2,74", "(1,000)", "]1;2[", r"\mathbb{R}\setminus\{2\}", "0.3"]
NOTATIONS += [r"x \ne 3", "(1;2),(3;4)", "1,1,2", r"\{x : x > 2\}", "1 234", r"4 \quad 5", r"30\%", "52_8"]
NOTATIONS += [r"\text{noon}", r"7^{\text{th}}"]


@BOUNDED
@given(
    st.sampled_from(NOTATIONS),
    st.sampled_from(NOTATIONS) | answers().map("".join),
    st.sampled_from([" ", r"\,", "\u2009", "\u00a0", r"\;"]),
)
def test_an_answer_equals_itself_and_narrow_spaces_around_it_do_not_count(answer, other, space):
    for text in (answer, other):
        assert score(space + text + space, text) == 1.0
    assert score(rf"({answer};{other})", f"({answer};{other})") == 1.0


def written(value: Fraction, form: int) -> str:
    """A number with a finite decimal expansion, in one of several forms."""
    decimal = f"{float(value):.3f}"
    whole, rest = divmod(abs(value), 1)
    sign = "-" if value < 0 else ""
    forms = [decimal, f"{value.numerator}/{value.denominator}", rf"\dfrac{{{value.numerator}}}{{{value.denominator}}}"]
    forms += [f"{float(value):,.3f}", rf"${decimal}$", rf"{decimal}\text{{ cm}}", rf"\frac{{{2 * value}}}{{2}}"]
    forms += [rf"{sign}{whole}\frac{{{rest.numerator}}}{{{rest.denominator}}}" if rest and whole else decimal]
    forms += [rf"{float(value) * 1000:.0f} \times 10^{{-3}}", f"{float(value) * 1000:.0f}e-3", rf"x = {decimal}"]
    return forms[form % len(forms)]


FINITE = st.integers(-(10**6), 10**6).map(lambda n: Fraction(n, 1000))
NEAR = st.sampled_from([Fraction(0), Fraction(1, 1000), Fraction(-1, 1000), Fraction(1), Fraction(10)])


@BOUNDED
@given(FINITE, FINITE, NEAR, st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_a_number_verifies_exactly_if_it_is_equal(value, other, nudge, form, other_form, near):
    other = value + nudge if near else other
    for candidate in (other, -value):
        assert score(written(candidate, other_form), written(value, form)) == float(candidate == value)


@BOUNDED
@given(st.lists(FINITE, min_size=2, max_size=5), st.data())
def test_sets_ignore_the_order_and_tuples_do_not(values, data):
    shuffled = data.draw(st.permutations(values))
    left, right = (",".join(str(float(value)) for value in side) for side in (values, shuffled))
    assert score(rf"\{{{right}\}}", rf"\{{{left}\}}") == 1.0
    assert score(f"({right})", f"({left})") == float(list(values) == list(shuffled))
    assert score(rf"\{{{right}\}}", f"({left})") == 0.0


@BOUNDED
@given(numbers(), numbers(), numbers())
def test_expanded_and_factored_forms_are_equal_and_others_are_not(a, b, c):
    a, b, c = ("(" + "".join(tokens) + ")" for tokens in (a, b, c))
    product = f"(x+{a})(x-{b})"
    assert score(f"x^2+x{a}-{b}x-{a}{b}", product) == 1.0
    assert score(f"x^2+x{a}-{b}x-{a}{b}+1", product) == 0.0
    assert score(f"x^2+x{a}-{b}x-{a}{b}+{c}x-{c}x", product) == 1.0


FRAGMENTS = st.sampled_from(
    [
        *(
            r"\frac",
            "{",
            "}",
            "(",
            ")",
            "[",
            "]",
            r"\{",
            r"\}",
            "1",
            "2",
            "3.5",
            "x",
            "y",
            "+",
            "-",
            "*",
            "/",
            "^",
            "_",
            ",",
        ),
        *(
            ";",
            "=",
            "<",
            r"\le",
            r"\ne",
            r"\in",
            r"\cup",
            r"\pm",
            r"\sqrt",
            r"\text{",
            r"\text{or}",
            r"\%",
            "$",
            r"\pi",
            "e",
            "i",
        ),
        *(r"\infty", r"\sin", r"\log", "!", "|", r"^\circ", r"\begin{pmatrix}", r"\end{pmatrix}", "&", r"\\", r"\left"),
        *(
            r"\right",
            "and",
            "or",
            r"\boxed{",
            "####",
            "<answer>",
            "</answer>",
            "</think>",
            r"\overline",
            r"\binom",
            r"\lfloor",
        ),
        *(
            r"\rfloor",
            r"\approx",
            ":",
            "'",
            "_8",
            "\\mathbb{R}",
            r"\emptyset",
            r"\choose",
            "1,000",
            "e5",
            "(C)",
            "million",
            "%",
        ),
        *(
            "**",
            " ",
            "\n",
            "the answer is",
            "Final Answer:",
            "\u221a",
            "\u00bd",
            "\u2212",
            "\u0663",
            "\x00",
            "\ud800",
            "\u202e",
        ),
    ]
)
REFERENCES = [
    r"\frac{271}{828}",
    "(271,828)",
    r"\{271,828\}",
    "[271,828)",
    "x=271",
    "271x^2+828",
    r"271\%",
    "271_9",
    "271 cm",
]
REFERENCES += [
    r"\begin{pmatrix}271\\828\end{pmatrix}",
    r"x\le 271",
    r"(2,71)\cup(8,28)",
    "27:18",
    "x=27,y=18",
    r"\text{maybe}",
]


@pytest.mark.parametrize("last_number", [False, True])
@FUZZED
@given(parts=st.lists(FRAGMENTS | st.text(max_size=3), max_size=30), box=st.booleans(), data=st.data())
def test_nonsense_never_fails_and_never_scores(last_number, parts, box, data):
    text = "".join(parts)
    verdict = verify(
        "math", boxed(text) if box else text, data.draw(st.sampled_from(REFERENCES)), last_number=last_number
    )
    assert (verdict.score, verdict.error) == (0.0, None)


@FUZZED
@given(st.binary(max_size=200))
def test_random_bytes_never_fail_and_never_score(junk):
    for completion in (junk, rb"\boxed{" + junk + b"}"):
        verdict = verify("math", completion, "271828")
        assert (verdict.score, verdict.error) == (0.0, None)


@FUZZED
@given(st.lists(FRAGMENTS, max_size=60), st.lists(FRAGMENTS, max_size=20))
def test_the_parsers_take_any_text(parts, others):
    """`read` always gives a form; formulas are parsed and compared, or refused with a ValueError."""
    texts = [clean("".join(side)) for side in (parts, others)]
    for text in texts:
        if refusal(text) is None:
            assert read(text[:MAX_LENGTH]) == read(text[:MAX_LENGTH])
    with contextlib.suppress(ValueError):
        trees = [expression.parse(text) for text in texts]
        assert numeric.equal(*trees) == numeric.equal(*reversed(trees))
