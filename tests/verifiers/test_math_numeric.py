r"""Equality of formulas by value: long numbers, signs of variables, distant points; and that it takes bounded time."""

import contextlib
import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.verifiers.mathematics import numeric
from rlvr_jax.verifiers.mathematics.expression import TooLargeError, parse
from rlvr_jax.verifiers.mathematics.latex import clean

BOUNDED = settings(derandomize=True, deadline=None, max_examples=60)


def equal(left: str, right: str) -> bool:
    trees = parse(clean(left)), parse(clean(right))
    verdict = numeric.equal(*trees)
    assert numeric.equal(*reversed(trees)) == verdict
    return verdict


NEARLY = [  # equal to more digits than a double has, or than are computed at first
    (r"\sqrt{10^{26}+1}", "10^{13}"),
    (r"\sqrt[3]{8^{40}+1}", "2^{40}"),
    (r"\sqrt{10^{90}+1}", r"\sqrt{10^{90}+2}"),
    (r"\sqrt{10^{60}+1}-10^{30}", "0"),
    (r"\pi+10^{-70}", r"\pi"),
    (r"\frac{\pi}{10^{45}}", r"\frac{\pi+1}{10^{45}}"),
    ("e^{-900}", "e^{-901}"),
    (r"\sqrt{2}\cdot 10^{80}", r"\sqrt{2}\cdot 10^{80}+1"),
    (r"e^{\pi\sqrt{163}}", "640320^3+744"),
    (r"\ln(10^{70}+1)", r"70\ln 10"),
    ("y+10^{-50}", "y"),
    ("x^2+10^{-40}x", "x^2"),
]
EXACTLY = [
    (r"\sqrt{10^{60}+1}-10^{30}", r"\frac{1}{\sqrt{10^{60}+1}+10^{30}}"),
    (r"\sqrt{3\cdot 4^{1000}}", r"2^{1000}\sqrt{3}"),
    ("2^{2009/2}", r"2^{1004}\sqrt{2}"),
    (r"\pi \cdot 3^{400}", r"3^{401}\frac{\pi}{3}"),
    (r"\sqrt[3]{2+\sqrt{5}}+\sqrt[3]{2-\sqrt{5}}", "1"),
    (r"\cos 20^\circ\cos 40^\circ\cos 80^\circ", r"\frac{1}{8}"),
    (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5+2\sqrt{6}}"),
    ("e^{-900}", r"\frac{1}{e^{900}}"),
    (r"8^{2/3}\cdot 5^{1/2}", r"4\sqrt{5}"),
]


@pytest.mark.parametrize(("left", "right"), NEARLY)
def test_numbers_that_are_nearly_equal_are_different(left, right):
    assert not equal(left, right)


@pytest.mark.parametrize(("left", "right"), EXACTLY)
def test_the_same_number_is_equal_however_long(left, right):
    assert equal(left, right)


def test_what_would_need_too_many_digits_is_refused():
    with pytest.raises(TooLargeError):
        equal(r"\sqrt{10^{4000}+1}", "10^{2000}")
    with pytest.raises(TooLargeError):
        equal(r"\ln(10^{1000}+1)", r"1000\ln 10")


PIECEWISE = [  # equal where variables are positive or small only
    ("3z-1", "3|z|-1"),
    ("u^3", "u^2|u|"),
    (r"\sqrt{u^2}", "u"),
    (r"\sqrt[4]{t^4}", "t"),
    ("(t^2)^{1/2}", "t"),
    (r"\frac{1}{2}\ln(w^2)+|w|", r"\ln|w|+w"),
    ("|ab|", "ab"),
    ("|a|b", "a|b|"),
    ("|pqr|", "pqr"),
    ("|p|qr", "p|qr|"),
    ("abcd|ef|", "abcdef"),
    ("|x-7|", "7-x"),
    (r"\sqrt{(n-500)^2}", "500-n"),
    ("|x+9|", "x+9"),
    (r"\lfloor x \rfloor", r"\lfloor 3 - \frac{1}{x+4} \rfloor - \lfloor 3-x\rfloor"),
    (r"\sqrt{x^2-2x+1}", "1-x"),
    ("|x|+|x-1|", "2x-1"),
    (r"\frac{|k|}{k}", "1"),
]
ALGEBRA = [
    (r"\sqrt{x^2}", "|x|"),
    ("|ab|", "|a||b|"),
    (r"\sqrt{x^2-2x+1}", "|1-x|"),
    (r"\sqrt[3]{x^3}", "x"),
    (r"\frac{1}{5\sqrt[3]{y}^2}", r"\frac{1}{5y^{2/3}}"),
    (r"\ln(x^3)", r"3\ln x"),
    (r"\lfloor x+\frac{1}{2}\rfloor", r"\lceil x-\frac{1}{2}\rceil"),
    ("2^{x+3}", r"8\cdot 2^x"),
    (r"\sqrt{50a^3}", r"5a\sqrt{2a}"),
]


@pytest.mark.parametrize(("left", "right"), PIECEWISE)
def test_formulas_must_be_equal_for_all_signs_and_sizes_of_their_variables(left, right):
    assert not equal(left, right)


@pytest.mark.parametrize(("left", "right"), ALGEBRA)
def test_formulas_that_are_equal_wherever_both_have_a_value_are_equal(left, right):
    assert equal(left, right)


@BOUNDED
@given(st.lists(st.sampled_from("abcdkmnpqrstuvwxyz"), min_size=1, max_size=4, unique=True), st.data())
def test_every_combination_of_signs_is_tried(variables, data):
    chosen = data.draw(st.sets(st.sampled_from(variables), min_size=1))
    absolute = "".join(f"|{name}|" if name in chosen else name for name in variables)
    assert not equal(absolute, "".join(variables))


@BOUNDED
@given(st.integers(2, 10**30), st.integers(1, 10**6), st.integers(2, 5))
def test_roots_of_neighbours_are_different(base, step, degree):
    power = base**degree
    assert equal(rf"\sqrt[{degree}]{{{power}}}", str(base))
    assert not equal(rf"\sqrt[{degree}]{{{power + step}}}", rf"\sqrt[{degree}]{{{power}}}")
    assert not equal(rf"\sqrt[{degree}]{{{power + step}}}+\pi", rf"{base}+\pi")


COSTLY = [
    "+".join(rf"\ln({n}^{{40}}+1)" for n in range(2, 30)),
    "+".join(rf"\sqrt[7]{{{n}^{{99}}+1}}" for n in range(2, 30)),
    "+".join(rf"|{a}-{b}|^{{1/3}}" for a, b in itertools.pairwise("abcdefghjklmnopqrstuvwxyzabcdefgh")),
    "+".join(rf"\sin({n}^{{{n}}}x)" for n in range(2, 35)),
    r"\sqrt{1+" * 23 + "x" + "}" * 23,
    "e^{" * 20 + "x" + "}" * 20,
    "*".join(rf"\arctan\frac{{1}}{{{n}^{{30}}}}" for n in range(2, 22)),
]


@pytest.mark.parametrize("text", COSTLY)
def test_a_comparison_takes_little_processor_time(text):
    trees = parse(clean(text)), parse(clean(f"{text}+0"))
    start = time.process_time()
    with contextlib.suppress(TooLargeError):
        assert numeric.equal(*trees)
    assert time.process_time() - start < 5.0  # measured: at most 0.6
