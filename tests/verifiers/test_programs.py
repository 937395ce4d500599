import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.verifiers.programs import verify

PLUS_FOUR = {"visible": [1, 4, 7], "outputs": [x + 4 for x in range(10)]}
SQUARE = {"visible": [0, 2, 9], "outputs": [x * x - 5 for x in range(10)]}


@pytest.mark.parametrize(
    ("completion", "reference", "form", "visible", "hidden"),
    [
        ("x+4", PLUS_FOUR, "program", 3, 7),
        ("4+x", PLUS_FOUR, "program", 3, 7),
        ("1+x*1+3", PLUS_FOUR, "program", 3, 7),
        ("x*2+3", PLUS_FOUR, "program", 1, 0),
        ("11", PLUS_FOUR, "program", 1, 0),
        ("x*x-5", SQUARE, "program", 3, 7),
        ("[5,8,11]", PLUS_FOUR, "table", 3, 0),
        ("[5,8]", PLUS_FOUR, "table", 2, 0),
        ("[5,8,11,12,13]", PLUS_FOUR, "table", 3, 0),
        ("[-5,-1,76]", SQUARE, "table", 3, 0),
        ("?1,5;4,8;7,11", PLUS_FOUR, "guard", 3, 0),
        ("?1,5;2,6;3,7", PLUS_FOUR, "guard", 1, 2),
    ],
)
def test_each_form_passes_the_tests_that_it_passes(completion, reference, form, visible, hidden):
    verdict = verify(completion, reference)
    assert verdict.score == float(hidden == 7)
    assert verdict.parts == {
        "visible": visible / 3, "hidden": hidden / 7, "all_visible": float(visible == 3),
        "program": float(form == "program"), "table": float(form == "table"), "guard": float(form == "guard"),
    }  # fmt: skip
    assert (verdict.answer, f"{hidden} of 7 hidden" in verdict.reason) == (completion, True)


@pytest.mark.parametrize(
    "text", ["", "x+", "+x", "x--4", "xx", "2x", "x4", "x+4 ", "X+4", "[5,8,11", "[]", "?1,5;", "1,5", "x+4:", "x" * 40]
)
def test_what_has_no_form_passes_nothing(text):
    verdict = verify(text, PLUS_FOUR)
    assert (verdict.score, verdict.answer, set(verdict.parts.values())) == (0.0, None, {0.0})


@given(st.text("x0123456789+-*[],?;:", max_size=40))
def test_any_text_gets_a_verdict_and_expressions_have_pythons_value(text):
    verdict = verify(text, SQUARE)
    if verdict.parts["program"] and not any(part.startswith("0") and len(part) > 1 for part in _numbers(text)):
        outputs = [eval(text, {"x": x}) for x in range(10)]
        assert verdict.parts["hidden"] == sum(outputs[x] == SQUARE["outputs"][x] for x in (1, 3, 4, 5, 6, 7, 8)) / 7


def _numbers(text):
    return text.translate(str.maketrans("x+-*", "    ")).split()


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        {"visible": [], "outputs": [0] * 10},
        {"visible": [1], "outputs": [0]},
        {"visible": [1, 1], "outputs": [0] * 10},
        {"visible": [12], "outputs": [0] * 10},
    ],
)
def test_a_wrong_reference_is_an_error(wrong):
    with pytest.raises(ValueError, match="outputs"):
        verify("x", wrong)
