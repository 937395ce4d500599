"""What counts as said: the text after the thoughts."""

import pytest

from rlvr_jax.text.tags import after_thinking, answer_in_tags, opens_thinking


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
