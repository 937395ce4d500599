"""What counts as said: the text after the thoughts."""

import re

import pytest

from rlvr_jax.text.numbers import whole
from rlvr_jax.text.tags import after_thinking, answer_in_tags, between, opens_thinking


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no thought", "no thought"),
        ("", ""),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),  # the prompt has opened it
        ("<think>a</think>b</think>c", "c"),
        ("<think>a <think>b</think> c</think>d", "d"),
        ("<think>a</think>", ""),
        ("<think>a", None),
        ("a<think>b", None),
        ("<think>a</think>b<think>c", None),
        ("a</think>b<think>c", None),
        ("<THINK>a", None),
        ("<Think>a</THINK>b</think>İ<answer>c</answer>", "İ<answer>c</answer>"),
        ("İ</tHinK>b", "b"),
        ("<thin\u212a>a", "<thin\u212a>a"),  # the Kelvin sign
    ],
)
def test_said_is_what_follows_the_last_thought_and_nothing_while_one_is_open(text, said):
    assert after_thinking(text) == said
    if said is not None:
        assert after_thinking(said) == said


@pytest.mark.parametrize(
    ("prompt", "opened"),
    [
        ("Q<think>", True),
        ("Q<think>\n\n", True),
        ("Q<THINK>\n", True),
        ("<think>Q", False),
        ("<think>\n\n</think>\n\n", False),
        ("", False),
    ],
)
def test_a_prompt_opens_a_thought_if_it_ends_with_the_tag(prompt, opened):
    assert opens_thinking(prompt) == opened


@pytest.mark.parametrize(
    ("text", "answer"),
    [("<answer> 5 </answer>", "5"), ("<answer>4</answer><answer>5</answer>", "5"), ("<answer>5", None), ("5", None)],
)
def test_the_last_pair_of_answer_tags_counts(text, answer):
    assert answer_in_tags(text) == answer


@pytest.mark.parametrize("text", ["", "[a]b[c[d]]", "[][a\n]", "a][b"])
def test_what_is_between_marks_is_what_an_expression_finds(text):
    assert between(text, "[", "]") == re.findall(r"\[(.*?)\]", text, re.DOTALL)


def test_marks_without_end_take_linear_time():
    for text in ("[" * 200_000, "[]" * 50_000 + "["):  # minutes of a search that begins anew at each mark
        assert between(text, "[", "]") == [""] * text.count("]")


def test_a_whole_number_is_one_to_nine_digits():
    assert [whole(x) for x in ("7", "007", "9" * 9)] == [7, 7, 999_999_999]
    for other in ("9" * 10, "9" * 5000, "\u0661", "\u00b2", "", "-1", "1_0", " 1"):
        assert whole(other) is None
