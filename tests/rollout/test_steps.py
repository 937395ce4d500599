import numpy as np
import pytest

from rlvr_jax.rollout.steps import states_of, steps_of
from rlvr_jax.text.tokenizers import byte_tokenizer, encode

TOKENIZER = byte_tokenizer()


def texts_of(text, **options):
    """The text of each step."""
    tokens = np.array(encode(TOKENIZER, text), np.int32)
    steps = steps_of(tokens, TOKENIZER, **options)
    assert (np.diff(steps) >= 0).all()
    assert sorted(set(steps.tolist())) == list(range(steps.max(initial=-1) + 1))
    return [bytes((tokens[steps == k] - 2).tolist()).decode() for k in range(steps.max(initial=-1) + 1)]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("a\nb\nc", ["a\n", "b\n", "c"]),
        ("\n\n a\n\n\nb\n", ["\n\n a\n\n\n", "b\n"]),
        ("one line", ["one line"]),
        ("\n", ["\n"]),
        ("", []),
    ],
)
def test_a_response_is_divided_after_its_delimiters(text, steps):
    assert texts_of(text) == steps


def test_a_delimiter_may_span_tokens_and_a_step_may_be_a_number_of_tokens():
    assert texts_of("x = 1. So y = 2. Done", delimiter=". ") == ["x = 1. ", "So y = 2. ", "Done"]
    assert texts_of("abcdefg", length=3) == ["abc", "def", "g"]


def test_a_stop_token_belongs_to_the_last_step():
    tokens = np.array([*encode(TOKENIZER, "a\nb"), TOKENIZER.eos_token_id], np.int32)
    assert steps_of(tokens, TOKENIZER).tolist() == [0, 0, 1, 1]


def test_states_are_where_steps_begin_up_to_a_number_of_them():
    steps = np.array([0, 0, 1, 2, 2, 2, 3], np.int32)
    assert states_of(steps, 9) == [0, 2, 3, 6]
    assert states_of(steps, 2) == [0, 2]
    assert states_of(np.zeros(0, np.int32), 4) == []
