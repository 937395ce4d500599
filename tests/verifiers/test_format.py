"""The checks of form: their values on examples, and what holds for any text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.text.tags import TAGS
from rlvr_jax.verifiers import format as form

CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think><answer>b</answer>", 1),
        ("\n<think>a\n</think>\n<answer> b </answer>\n", 1),
        ("<think>a</think> so <answer>b</answer>", 0),
        ("<think>a</think><answer>b</answer>.", 0),
        ("Hm <think>a</think><answer>b</answer>", 0),
        ("<answer>b</answer><think>a</think>", 0),
        ("<think>a<answer>b</answer></think>", 0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0),
        ("<think>a</think></think><answer>b</answer>", 0),
        ("<think>a</think></answer>b<answer>", 0),
        ("<think> </think><answer>b</answer>", 0),
        ("<think>a</think><answer> </answer>", 0),
        ("<think>a</think><answer>b", 0),
        ("a</think><answer>b</answer>", 0),
        ("<Think>a</Think><answer>b</answer>", 0),
        ("", 0),
    ],
)
def test_think_answer_wants_both_tags_once_in_order_and_nothing_outside(text, expected):
    assert form.think_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("a b c", {"high": 3}, 1),
        ("a b c d", {"high": 3}, 0),
        ("a b c", {"low": 4, "high": 5}, 0),
        ("a b c d", {"low": 4, "high": 5}, 1),
        ("abcd", {"high": 3, "unit": "characters"}, 0),
        ("a b c d", {"high": 3, "slack": 3}, 0.75),
        ("a b c d e f", {"high": 3, "slack": 3}, 0.25),
        ("a b c d e f g", {"high": 3, "slack": 3}, 0),
        ("", {"high": 0}, 1),
    ],
)
def test_length_is_one_within_the_budget_and_falls_evenly_over_the_slack(text, options, expected):
    assert form.length(text, **options) == expected


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("a b c d", 2, 0),
        ("a b A B", 2, 1 / 3),  # ab bA AB: one of three stood there before
        ("a a a a a", 1, 4 / 5),
        ("a b c a b c a b c", 3, 4 / 7),
        ("a b", 3, 0),
        ("", 1, 0),
    ],
)
def test_repetition_is_the_share_of_ngrams_that_stood_there_before(text, n, expected):
    assert form.repetition(text, n=n) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 4))
def test_repetition_agrees_with_counting(words, n):
    ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    repeated = sum(ngram in ngrams[:i] for i, ngram in enumerate(ngrams))
    assert form.repetition(" ".join(words), n=n) == pytest.approx(repeated / max(1, len(ngrams)), abs=1e-12)


def test_script_is_the_share_of_letters_of_that_script():
    assert form.script("Grün, 12!") == 1
    assert form.script("ab да") == 0.5
    assert form.script("ab да", name="cyrillic") == 0.5
    assert form.script("漢字 x", name="CJK") == pytest.approx(2 / 3)
    assert form.script("12 + 3 = 15") == 1


def test_language_is_one_for_a_text_in_that_language_and_zero_if_it_cannot_be_told():
    assert form.language("The weather is fine today, and we go for a walk.") == 1
    assert form.language("Das Wetter ist heute schön, und wir gehen spazieren.") == 0
    assert form.language("Das Wetter ist heute schön, und wir gehen spazieren.", code="de") == 1
    assert form.language("1 + 1 = 2") == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CALL, 1),
        (f"Let me see.\n{CALL}\n{CALL}", 1),
        (f"{CALL}<tool_call>add(1)</tool_call>", 0.5),
        ("no call", 0),
        (CALL + "<tool_call>", 0),
        (CALL + "</tool_call>", 0),
        ("</tool_call>" + CALL, 0),
        ("<tool_call>" + CALL, 0),
        ('<tool_call>{"name": "add"}</tool_call>', 0),
        ('<tool_call>{"name": "", "arguments": {}}</tool_call>', 0),
        ('<tool_call>{"name": "add", "arguments": "{}"}</tool_call>', 0),
        ('<tool_call>{"name": "add", "arguments": {}, "id": 1}</tool_call>', 0),
        ('<tool_call>[{"name": "add", "arguments": {}}]</tool_call>', 0),
        ("<tool_call>" + '{"a":' * 30_000 + "</tool_call>", 0),
        ("<tool_call>" + "[" * 10**5 + "]" * 10**5 + "</tool_call>", 0),
    ],
)
def test_tool_calls_is_the_share_of_well_formed_calls(text, expected):
    assert form.tool_calls(text) == expected


@given(st.text(min_size=1), st.dictionaries(st.text(), st.integers()))
def test_any_name_and_arguments_make_a_well_formed_call(name, arguments):
    call = json.dumps({"name": name, "arguments": arguments})
    if "tool_call>" not in call:
        assert form.tool_calls(f"<tool_call>{call}</tool_call>") == 1


@pytest.mark.parametrize(
    ("check", "options", "message"),
    [
        ("length", {"high": -1}, "0 <= low <= high"),
        ("length", {"high": 1, "low": 2}, "0 <= low <= high"),
        ("length", {"high": 1, "slack": -1}, "slack >= 0"),
        ("length", {"high": 1, "unit": "tokens"}, "unit='tokens'"),
        ("repetition", {"n": 0}, "needs n >= 1"),
        ("language", {"code": "english"}, "language 'english' is not known"),
    ],
)
def test_wrong_arguments_are_refused(check, options, message):
    with pytest.raises(ValueError, match=message):
        form.CHECKS[check]("text", **options)


ANY = st.lists(
    st.one_of(st.text(max_size=9), st.sampled_from([*TAGS, CALL])),
    max_size=9,
).map("".join)


@pytest.mark.parametrize("name", form.CHECKS)
@given(text=ANY)
def test_every_check_gives_a_number_between_0_and_1_for_any_text(name, text):
    options = {"high": 5, "slack": 5} if name == "length" else {}
    value = form.CHECKS[name](text, **options)
    assert isinstance(value, float)
    assert 0.0 <= value <= 1.0


@pytest.mark.parametrize("name", form.CHECKS)
@pytest.mark.parametrize("piece", ["<think>", "a ", "[", "<tool_call>", "</answer>", "\ud800", "漢", "a@"])
def test_a_million_characters_are_no_trouble(name, piece):
    value = form.CHECKS[name](piece * (10**6 // len(piece)), **({"high": 5} if name == "length" else {}))
    assert 0.0 <= value <= 1.0
