"""The character and the byte tokenizer."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from rlvr_jax.tasks import countdown, modsum
from rlvr_jax.text.tags import TAGS
from rlvr_jax.text.tokenizers import byte_tokenizer, character_tokenizer, decode, encode, encode_batch, make_tokenizer

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
BYTES = byte_tokenizer()
DIGITS = character_tokenizer("0123456789=#")


def test_pad_is_0_eos_is_1_and_characters_count_from_2():
    assert isinstance(DIGITS, PreTrainedTokenizerFast)
    assert (DIGITS.pad_token_id, DIGITS.eos_token_id, len(DIGITS)) == (0, 1, 14)
    assert encode(DIGITS, "0189=#") == [2, 3, 10, 11, 12, 13]
    assert (BYTES.pad_token_id, BYTES.eos_token_id, len(BYTES)) == (0, 1, 258)


@given(TEXT)
@settings(deadline=None)
def test_any_text_survives_the_byte_tokenizer(text):
    ids = encode(BYTES, text)
    assert ids == [byte + 2 for byte in text.encode()]
    assert decode(BYTES, [ids]) == [text]


@pytest.mark.parametrize(
    "text", ["", " leading", "trailing \n", "\r\n\t\x00", "naïve 東京 👩‍👩‍👧", "<eos><pad>", "  a  b "]
)
def test_special_characters_and_special_token_names_survive_the_byte_tokenizer(text):
    assert decode(BYTES, [encode(BYTES, text)]) == [text]
    assert encode(BYTES, text) == [byte + 2 for byte in text.encode()]


@given(data=st.data(), alphabet=TEXT.filter(bool).map(lambda text: "".join(dict.fromkeys(text))))
@settings(deadline=None, max_examples=50)
def test_text_over_any_alphabet_survives_the_character_tokenizer(data, alphabet):
    text = data.draw(st.text(st.sampled_from(alphabet)))
    tokenizer = character_tokenizer(alphabet)
    ids = encode(tokenizer, text)
    assert ids == [alphabet.index(character) + 2 for character in text]
    assert decode(tokenizer, [ids]) == [text]


@given(st.lists(st.integers(0, 257)))
@settings(deadline=None)
def test_any_byte_ids_decode_and_invalid_utf8_becomes_the_replacement_character(ids):
    expected = bytes(index - 2 for index in ids if index > 1).decode(errors="replace")
    assert decode(BYTES, [ids]) == [expected]


def test_pad_and_eos_are_left_out_of_decoded_text():
    assert decode(DIGITS, [[13, 3, 1, 0, 0], [1], [], [0, 2]]) == ["#1", "", "", "0"]


@pytest.mark.parametrize("special", [True, False])
def test_tags_stay_in_decoded_text_even_as_special_tokens(special):
    tokenizer = byte_tokenizer()
    backend = tokenizer.backend_tokenizer
    add = backend.add_special_tokens if special else backend.add_tokens
    add([AddedToken(text, special=special) for text in (*TAGS, "<|im_end|>")])
    pieces = ["<think>", "hm ü", "</think>", "\n", "<answer>", "5", "</answer>", "<tool_call>", "{}", "</tool_call>"]
    ids = [id for piece in pieces for id in ([backend.token_to_id(piece)] if piece in TAGS else encode(BYTES, piece))]
    assert max(ids) >= 258  # tags are tokens of their own
    end = [backend.token_to_id("<|im_end|>"), tokenizer.pad_token_id, tokenizer.eos_token_id, 5_000]
    said = "<|im_end|>" * (not special)
    assert decode(tokenizer, [ids + end, end]) == ["".join(pieces) + said, said]


def test_arrays_and_lists_decode_alike():
    ids = [[13, 3, 1], [2, 4, 1]]
    assert decode(DIGITS, np.array(ids, np.int32)) == decode(DIGITS, ids) == ["#1", "02"]


def test_a_batch_encodes_as_its_texts_one_by_one():
    texts = ["680845=", "", "#1"]
    assert encode_batch(DIGITS, texts) == [encode(DIGITS, text) for text in texts]


@pytest.mark.parametrize(
    ("text", "named"), [("12x4", "'x', character 2"), ("1 2", "' ', character 1"), ("<eos>", "'<'")]
)
def test_a_character_outside_the_alphabet_is_named(text, named):
    with pytest.raises(ValueError, match=f"no token for {named}.*the alphabet is '0123456789=#'"):
        encode(DIGITS, text)
    with pytest.raises(ValueError, match=named):
        encode_batch(DIGITS, ["12", text])


def test_what_is_not_unicode_text_is_refused():
    with pytest.raises(ValueError, match="half a surrogate pair"):
        encode(BYTES, "a\ud800")
    with pytest.raises(ValueError, match="encodes text, not bytes"):
        encode(BYTES, b"a")


@pytest.mark.parametrize("alphabet", ["", "aba"])
def test_an_alphabet_that_is_empty_or_repeats_is_refused(alphabet):
    with pytest.raises(ValueError, match="different characters"):
        character_tokenizer(alphabet)


@pytest.mark.parametrize("tokenizer", [BYTES, DIGITS], ids=["bytes", "characters"])
def test_a_tokenizer_is_saved_and_loaded_as_a_pretrained_model_does(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert encode(loaded, "680845=") == encode(tokenizer, "680845=")
    assert decode(loaded, [[13, 3, 1, 0]]) == decode(tokenizer, [[13, 3, 1, 0]])
    assert (loaded.pad_token_id, loaded.eos_token_id) == (0, 1)


def test_the_call_of_transformers_and_encode_agree():
    assert DIGITS("680845=")["input_ids"] == encode(DIGITS, "680845=")
    assert BYTES("<eos> ü")["input_ids"] == encode(BYTES, "<eos> ü")


def test_a_tokenizer_is_chosen_by_its_kind():
    for task in (modsum(), countdown(operators="+-*/")):
        tokenizer = make_tokenizer("characters", {task.name: task.alphabet})
        example = task.example("train", 0)
        assert decode(tokenizer, [encode(tokenizer, example.prompt)]) == [example.prompt]
    assert len(make_tokenizer("bytes")) == 258
    both = make_tokenizer("characters", {task.name: task.alphabet for task in (modsum(), countdown(operators="+-*/"))})
    assert decode(both, [encode(both, "3+(4*5)>#=")]) == ["3+(4*5)>#="]
    with pytest.raises(ValueError, match="'modsum' has none: use 'bytes'"):
        make_tokenizer("characters", {"modsum": None})


def test_making_a_tokenizer_prints_nothing_and_imports_no_pytorch():
    program = (
        "import sys; from rlvr_jax.text.tokenizers import *; assert 'transformers' not in sys.modules; "
        "encode(byte_tokenizer(), 'a'); assert not {'torch', 'tensorflow'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout + run.stderr == ""
