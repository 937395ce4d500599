"""Sentences, tokens and words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.verifiers.constraints.text import count_words, sentences, tokens


@pytest.mark.parametrize(
    "expected",
    [
        ["Hello there.", "How are you?", "Fine!"],
        ["What?!", "Yes."],
        ["Mr. Smith and Dr. Jones met at St. Mary in the U.S. in Jan. 2020."],
        ["He came at 5 p.m. on Monday.", "She left."],
        ["He lives in the U.S.", "The house is big."],
        ["J. Smith wrote it."],
        ["Pi is 3.14, the site example.com.", "Ok."],
        ["See version 2. and 3. of it."],
        ["1.", "First item\n2.", "Second item"],
        ["Contents:\nA.", "Introduction\n  B.", "Methods\n- C.", "Results"],
        ['He said "Really?"', "and left."],
        ["(He left.)", "She stayed."],
        ["**Bold.**", "Next"],
        ["Wait... what is it?"],
        ["Wait...", "What is it?"],
        ["I like it.", "P.S.", "Write soon."],
        ["A heading\n\nand its text."],
        ["\u201cYes.\u201d", "No."],
        ["I can't.", "You can."],
        ["Bring fruit, e.g. Apples, i.e. what grows here.", "Then go."],
        ["He (cf. Smith et al. 2020) has pens, paper, etc. in it.", "The end."],
    ],
)
def test_sentences_are_found_and_put_together_again(expected):
    assert sentences(" ".join(expected)) == expected


@pytest.mark.parametrize("blank", ["", " \n\t "])
def test_a_blank_text_has_no_sentences_tokens_or_words(blank):
    assert (sentences(blank), tokens(blank), count_words(blank)) == ([], [], 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, world.", "Hello , world ."),
        ("DON'T I'm they'll cat's cats'", "DO N'T I 'm they 'll cat 's cats '"),
        ("I cannot, gonna.", "I can not , gon na ."),
        ("state-of-the-art A--B", "state-of-the-art A -- B"),
        ("At 3:30, 1,000.50 (or so): $5!", "At 3:30 , 1,000.50 ( or so ) : $ 5 !"),
        ("The U.S. won. So...", "The U.S. won . So ..."),
        ("**NOTE**: AT&T", "* * NOTE * * : AT & T"),
    ],
)
def test_tokens_are_those_of_the_treebank(text, expected):
    assert tokens(text) == expected.split(" ")


def test_words_are_runs_of_letters_digits_and_underscores():
    assert count_words("don't -- a_b, 3.5 日本") == 6


@given(st.text(st.sampled_from("ab A.!?\"')*1\n-,'x\u201d")))
def test_sentences_and_tokens_hold_every_character_once_and_in_order(text):
    characters = "".join(text.split())
    assert "".join("".join(sentences(text)).split()) == characters
    assert "".join(tokens(text)) == characters
    assert all(sentence == sentence.strip() != "" for sentence in sentences(text))
