"""What follows each of IFEval's instructions and what does not, the odd decisions of the published checker included."""

import pytest

from rlvr_jax.verifiers.constraints import CHECKS, ifeval
from rlvr_jax.verifiers.constraints.arguments import bind

ENGLISH = "This is an english sentence, which says that the weather is fine today."
RUSSIAN = "Добрый вечер, сегодня была хорошая погода."

# Of each instruction: (kwargs, text) that are followed, and that are not.
CASES = {
    "change_case:capital_word_frequency": (
        [
            ({"capital_frequency": 3, "capital_relation": "at least"}, "NASA and the U.S. met at IBM."),
            ({"capital_frequency": 2, "capital_relation": "at least"}, "DON'T go."),  # DO and N'T
            ({"capital_frequency": 2, "capital_relation": "less than"}, "STATE-OF-THE-ART tools."),
            ({"capital_frequency": 1, "capital_relation": "less than"}, "Only Title Case, no SHOuting."),
        ],
        [
            ({"capital_frequency": 3, "capital_relation": "at least"}, "I saw a UFO."),
            ({"capital_frequency": 2, "capital_relation": "less than"}, "(YES) *NO*"),
        ],
    ),
    "change_case:english_capital": (
        [({}, ENGLISH.upper()), ({}, "HALT!"), ({}, "MIND THE GAP 2")],
        [
            ({}, ENGLISH),
            ({}, RUSSIAN.upper()),
            ({}, "12345"),
            ({}, "Halt!"),
            ({}, "СТОП!"),
            ({}, "FÜR ELISE"),
            ({}, "?!"),
        ],
    ),
    "change_case:english_lowercase": (
        [({}, ENGLISH.lower()), ({}, "no.")],
        [({}, ENGLISH), ({}, RUSSIAN.lower()), ({}, "1 2 3"), ({}, "нет.")],
    ),
    "combination:repeat_prompt": (
        [
            ({"prompt_to_repeat": " Write an ode. "}, "write an ODE. Here it is."),
            ({"prompt_to_repeat": "Write an ode."}, "\n Write an ode."),
        ],
        [({"prompt_to_repeat": "Write an ode."}, "You said: Write an ode.")],
    ),
    "combination:two_responses": (
        [({}, "one\n******\ntwo"), ({}, "******one******two******")],
        [
            ({}, "one ****** one"),
            ({}, "one ***** two"),
            ({}, "one ****** two ****** three"),
            ({}, "one ****** \n ****** two"),
            ({}, "one ******"),
        ],
    ),
    "detectable_content:number_placeholders": (
        [({"num_placeholders": 2}, "[a] and [b c]"), ({"num_placeholders": 1}, "[[]"), ({"num_placeholders": 0}, "x")],
        [
            ({"num_placeholders": 2}, "[a] and [b\nc]"),
            ({"num_placeholders": 2}, "[a[b]"),
            ({"num_placeholders": 1}, "]"),
        ],
    ),
    "detectable_content:postscript": (
        [
            ({"postscript_marker": "P.S."}, "Bye. P. S. write"),
            ({"postscript_marker": "P.S."}, "P.P.S. also"),
            ({"postscript_marker": "P.P.S"}, "p. p.s write"),
            ({"postscript_marker": "N.B."}, "so n.b. this"),
        ],
        [({"postscript_marker": "P.S."}, "PS: no"), ({"postscript_marker": "P.P.S"}, "P.S. no")],
    ),
    "detectable_format:constrained_response": (
        [({}, "My answer is maybe."), ({}, "So: My answer is no. Or?")],
        [({}, "My answer is yes"), ({}, "my answer is no.")],
    ),
    "detectable_format:json_format": (
        [({}, '{"a": [1, null]}'), ({}, '```json\n{"a": 1}\n```'), ({}, "```\n[]```"), ({}, "7")],
        [
            ({}, "{'a': 1}"),
            ({}, 'Here: {"a": 1}'),
            ({}, '{"a": 1'),
            ({}, "[" * 50_000 + "]" * 50_000),
            ({}, "9" * 5000),
        ],
    ),
    "detectable_format:multiple_sections": (
        [
            ({"num_sections": 2, "section_spliter": "SECTION"}, "SECTION 1\na\nSECTION 2\nb"),
            ({"num_sections": 2, "section_spliter": "Day "}, "Day1: a, Day\n22: b"),
        ],
        [
            ({"num_sections": 2, "section_spliter": "SECTION"}, "Section 1 Section 2"),
            ({"num_sections": 2, "section_spliter": "SECTION"}, "SECTION A SECTION  2 SECTION 3"),
        ],
    ),
    "detectable_format:number_bullet_lists": (
        [
            ({"num_bullets": 2}, "* a\n  * b\n** c"),
            ({"num_bullets": 2}, "- a\n---"),
            ({"num_bullets": 1}, "*\ntext"),
            ({"num_bullets": 1}, "*\n* b"),  # the second is the text of the first
            ({"num_bullets": 2}, "*\n- b"),
            ({"num_bullets": 0}, "a * b\n*"),
        ],
        [({"num_bullets": 2}, "* a\n* b\n* c"), ({"num_bullets": 1}, "1. a"), ({"num_bullets": 1}, "***\n**bold**")],
    ),
    "detectable_format:number_highlighted_sections": (
        [
            ({"num_highlights": 2}, "*a* and *b c*"),
            ({"num_highlights": 1}, "**a**"),
            ({"num_highlights": 1}, "* a\n* b *"),
        ],
        [
            ({"num_highlights": 3}, "*a* **b**"),
            ({"num_highlights": 1}, "*a\nb* ** **"),
            ({"num_highlights": 1}, "****"),
        ],
    ),
    "detectable_format:title": (
        [({}, "<<A title>>"), ({}, "x <<>> y <<z>>"), ({}, "<<<a>>")],
        [({}, "<< >>"), ({}, "<<a\nb>>"), ({}, "<a>"), ({}, ">>a<<"), ({}, "<<>>"), ({}, "<<>>>")],
    ),
    "keywords:existence": (
        [({"keywords": ["cat", "a.b"]}, "CATS are a.b"), ({"keywords": ["C++"]}, "I like c++.")],
        [({"keywords": ["cat", "dog"]}, "a cat"), ({"keywords": ["a.b"]}, "aXb"), ({"keywords": ["a+"]}, "aaa")],
    ),
    "keywords:forbidden_words": (
        [
            ({"forbidden_words": ["cat"]}, "concatenate cats"),
            ({"forbidden_words": ["a.c"]}, "abc"),
            ({"forbidden_words": ["C#", "@me", "$7"]}, "C me $70"),
        ],
        [
            ({"forbidden_words": ["cat", "dog"]}, "The Dog!"),
            ({"forbidden_words": ["cat"]}, "cat-like"),
            ({"forbidden_words": ["C#"]}, "I like c#, too"),
            ({"forbidden_words": ["C#"]}, "C#8"),
            ({"forbidden_words": ["@me"]}, "write to you@me, now"),
            ({"forbidden_words": ["$7"]}, "It costs US$7."),
            ({"forbidden_words": ["-x-"]}, "a-x-b"),
        ],
    ),
    "keywords:frequency": (
        [
            ({"keyword": " ab ", "frequency": 2, "relation": "at least"}, "AB cab"),
            ({"keyword": "aa", "frequency": 2, "relation": "less than"}, "aaa"),
        ],
        [({"keyword": "ab", "frequency": 2, "relation": "less than"}, "ab ab")],
    ),
    "keywords:letter_frequency": (
        [
            ({"letter": "A", "let_frequency": 2, "let_relation": "at least"}, "aA"),
            ({"letter": "#", "let_frequency": 2, "let_relation": "less than"}, "#a"),
        ],
        [({"letter": "a", "let_frequency": 2, "let_relation": "at least"}, "cab")],
    ),
    "language:response_language": (
        [({"language": "en"}, ENGLISH), ({"language": "ru"}, RUSSIAN)],
        [({"language": "de"}, ENGLISH), ({"language": "de"}, "12345 67890"), ({"language": "en"}, "...")],
    ),
    "length_constraints:nth_paragraph_first_word": (
        [
            ({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Well"}, 'a\n\n"well, then'),
            ({"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "a-b"}, "A-b c"),
            ({"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "a"}, "a\n\nb\n\n"),
        ],
        [
            ({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "well"}, "a\nwell"),
            ({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "well"}, "a\n\nwell\n\nb"),
            ({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "well"}, "a\n\n\n\nwell"),  # the second is blank
            ({"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "well"}, "wellness"),
        ],
    ),
    "length_constraints:number_paragraphs": (
        [
            ({"num_paragraphs": 2}, "a\n***\nb"),
            ({"num_paragraphs": 2}, "***a***b***"),
            ({"num_paragraphs": 1}, "a\n\nb"),
            ({"num_paragraphs": 2}, "a ****b"),
        ],
        [({"num_paragraphs": 2}, "a\n\nb"), ({"num_paragraphs": 2}, "a *** *** b"), ({"num_paragraphs": 1}, "***")],
    ),
    "length_constraints:number_sentences": (
        [
            ({"num_sentences": 3, "relation": "at least"}, "Hi! Are you in? Good."),
            ({"num_sentences": 3, "relation": "less than"}, "Dr. Smith paid 3.50 dollars. He left."),
        ],
        [({"num_sentences": 2, "relation": "at least"}, "A line\nand another\n\nand a third.")],
    ),
    "length_constraints:number_words": (
        [
            ({"num_words": 3, "relation": "at least"}, "I don't -- ... "),
            ({"num_words": 3, "relation": "less than"}, "well -- known"),
        ],
        [
            ({"num_words": 3, "relation": "less than"}, "well-known x_1"),
            ({"num_words": 2, "relation": "at least"}, "a_b"),
        ],
    ),
    "punctuation:no_comma": ([({}, "a; b، c")], [({}, "a, b")]),
    "startend:end_checker": (
        [({"end_phrase": "The End. "}, 'So.\nthe end."\n'), ({"end_phrase": "x"}, "x")],
        [({"end_phrase": "The end."}, "The end. Bye."), ({"end_phrase": "The end"}, "The end.")],
    ),
    "startend:quotation": ([({}, ' "a" and "b"\n')], [({}, '"'), ({}, '"a" b'), ({}, "“a”")]),
}


def test_every_instruction_is_tested():
    assert CASES.keys() == ifeval.CHECKS.keys()
    assert len(CASES) == 25


@pytest.mark.parametrize(("name", "kwargs", "text"), [(n, *case) for n, (yes, _) in CASES.items() for case in yes])
def test_is_followed(name, kwargs, text):
    assert CHECKS[name](text, **bind(CHECKS[name], kwargs)) is True


@pytest.mark.parametrize(("name", "kwargs", "text"), [(n, *case) for n, (_, no) in CASES.items() for case in no])
def test_is_not_followed(name, kwargs, text):
    assert CHECKS[name](text, **bind(CHECKS[name], kwargs)) is False
