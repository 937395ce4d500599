"""Strict and loose, at the level of instructions and of prompts; and the published cases."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.verifiers import verify as judge
from rlvr_jax.verifiers.constraints import CHECKS, MAX_LENGTH, ifeval, variants, verify
from rlvr_jax.verifiers.constraints.language import detect_language
from rlvr_jax.verifiers.pool import Job, Pool
from tests.verifiers.test_constraints_ifbench import CASES as IFBENCH_CASES
from tests.verifiers.test_constraints_ifeval import CASES as IFEVAL_CASES

EXAMPLES = {name: followed[0] for name, (followed, _) in (IFEVAL_CASES | IFBENCH_CASES).items()}


def reference(*instructions):
    """A reference of (id, kwargs) pairs."""
    names, kwargs = zip(*instructions, strict=True)
    return {"prompt": "?", "instruction_id_list": list(names), "kwargs": list(kwargs)}


TWO = reference(("punctuation:no_comma", {}), ("startend:quotation", {}))


def lines(path):
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_every_published_unit_case_gets_its_verdict(data_sets):
    cases = lines(data_sets / "ifeval" / "unit_cases.jsonl")
    assert len(cases) == 40
    for case in cases:
        verdict = judge("constraints", case["response"], reference((case["instruction_id"], case["kwargs"])))
        assert (verdict.score, verdict.error) == (float(case["expected"]), None), case["id"]


def test_every_published_prompt_is_accepted_with_its_kwargs_bare_or_among_nulls(data_sets):
    prompts = lines(data_sets / "ifeval" / "prompts.jsonl")
    names = {key for prompt in prompts for kwargs in prompt["kwargs"] for key in kwargs}
    assert {name for prompt in prompts for name in prompt["instruction_id_list"]} == set(ifeval.CHECKS)
    for prompt in prompts:
        bare = judge("constraints", "My answer is yes.", prompt)
        nulls = prompt | {"kwargs": [dict.fromkeys(names) | kwargs for kwargs in prompt["kwargs"]]}
        assert bare.error is None, prompt["key"]
        assert judge("constraints", "My answer is yes.", nulls) == bare


def test_the_two_prompts_that_ask_for_a_sign_as_letter_are_judged_by_that_sign(data_sets):
    prompts = {prompt["key"]: prompt for prompt in lines(data_sets / "ifeval" / "prompts.jsonl")}
    assert verify("nice and soft. #a #b #c #d", prompts[1122]).parts["strict/1"] == 1.0
    assert verify("nice and soft. #a #b #c", prompts[1122]).parts["strict/1"] == 0.0
    assert verify("!!!!!!", prompts[1129]).parts["strict/0"] == 1.0
    assert verify("!!!!!", prompts[1129]).parts["strict/0"] == 0.0


@pytest.mark.parametrize(
    ("completion", "options", "score", "strict", "loose"),
    [
        ('"Hi there."', {}, 1.0, (1, 1), (1, 1)),
        ('"Hi, there."', {}, 0.0, (0, 1), (0, 1)),
        ('"Hi, there."', {"score": "share"}, 0.5, (0, 1), (0, 1)),
        ('Sure:\n"Hi there."', {}, 0.0, (1, 0), (1, 1)),
        ('Sure:\n"Hi there."', {"mode": "loose"}, 1.0, (1, 0), (1, 1)),
        ('Sure:\n"Hi there."', {"score": "share"}, 0.5, (1, 0), (1, 1)),
        ('Sure, here:\n"Hi there."\nBye.', {"mode": "loose", "score": "share"}, 1.0, (0, 0), (1, 1)),
        ('*"Hi there."*', {"mode": "loose"}, 1.0, (1, 0), (1, 1)),
        ("", {}, 0.0, (0, 0), (0, 0)),
        (" \n*\n ", {"mode": "loose"}, 0.0, (1, 0), (1, 0)),
        (" \n \n", {"score": "share", "mode": "loose"}, 0.0, (0, 0), (0, 0)),
    ],
)
def test_score_and_parts(completion, options, score, strict, loose):
    verdict = verify(completion, TWO, **options)
    assert verdict.score == score
    assert verdict.parts == {
        "strict": float(all(strict)),
        "loose": float(all(loose)),
        "strict/0": strict[0],
        "loose/0": loose[0],
        "strict/1": strict[1],
        "loose/1": loose[1],
    }


def test_the_reason_names_the_instructions_that_are_not_followed():
    assert verify('"Hi, there."', TWO).reason == "not followed: 0 (punctuation:no_comma)"
    assert verify('"Hi there."', TWO).reason == "all followed"


def test_the_loose_variants_are_the_eight_published_ones():
    assert variants("*a*\nb\n*c") == ["*a*\nb\n*c", "b\n*c", "*a*\nb", "b", "a\nb\nc", "b\nc", "a\nb"]
    assert variants("*a*") == ["*a*", "", "a"]


def test_a_response_that_is_too_long_follows_nothing():
    assert verify('"' + "a" * (MAX_LENGTH - 2) + '"', TWO).score == 1.0
    verdict = verify('"' + "a" * (MAX_LENGTH - 1) + '"', TWO, score="share")
    assert (verdict.score, set(verdict.parts.values())) == (0.0, {0.0})
    assert verdict.reason == f"the response has {MAX_LENGTH + 1} characters, more than {MAX_LENGTH}"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "the reference of a constraints example is"),
        ({"instruction_id_list": []}, "the reference of a constraints example is"),
        ({"instruction_id_list": [], "kwargs": []}, "at least one"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "with as many kwargs as instructions"),
        ({"instruction_id_list": "abc", "kwargs": [{}, {}, {}]}, "the reference of a constraints example is"),
        (reference(("punctuation:no_comma", {}), ("x:y", {})), "instruction 1 is 'x:y', which is not among the known"),
        (reference((["x"], {})), r"instruction 0 is \['x'\]"),
        (reference(("punctuation:no_comma", "x")), "instruction 0, punctuation:no_comma: kwargs must be a mapping"),
        (reference(("punctuation:no_comma", {"n": 1})), "it takes no n"),
        (reference(("keywords:existence", {})), "it needs keywords"),
        (reference(("keywords:existence", {"keywords": "cat"})), "keywords must be a list of texts, not 'cat'"),
        (reference(("keywords:existence", {"keywords": []})), "keywords must be a list of texts"),
        (reference(("detectable_format:number_bullet_lists", {"num_bullets": 1.5})), "must be a whole number"),
        (reference(("detectable_format:number_bullet_lists", {"num_bullets": -1})), "must be a whole number"),
        (reference(("detectable_format:number_bullet_lists", {"num_bullets": True})), "must be a whole number"),
        (reference(("startend:end_checker", {"end_phrase": " "})), "end_phrase must be text"),
        (
            reference(("length_constraints:number_words", {"num_words": 3, "relation": "at most"})),
            "relation must be one of 'less than', 'at least', not 'at most'",
        ),
        (
            reference(("keywords:letter_frequency", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"})),
            "letter must be one character",
        ),
        (reference(("language:response_language", {"language": "xx"})), "language 'xx' is not known"),
        (
            reference(
                (
                    "length_constraints:nth_paragraph_first_word",
                    {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"},
                )
            ),
            "nth_paragraph must be between 1 and num_paragraphs = 2",
        ),
    ],
)
def test_a_wrong_reference_is_refused_with_what_is_wrong(bad, message):
    with pytest.raises(ValueError, match=message):
        verify("Hello.", bad)
    assert judge("constraints", "Hello.", bad).error.startswith("ValueError: ")


def test_a_wrong_option_is_refused():
    for options in ({"score": "some"}, {"mode": "lax"}):
        with pytest.raises(ValueError, match="score must be 'all' or 'share'"):
            verify("Hello.", TWO, **options)


def test_whole_floats_stand_for_integers():
    bullets = reference(("detectable_format:number_bullet_lists", {"num_bullets": 2.0}))
    assert verify("* a\n* b", bullets).score == 1.0


PIECES = [
    "***",
    "*",
    "- ",
    "<<T>>",
    "[x]",
    "P.S.",
    "SECTION1",
    "{}",
    "```",
    '"',
    "'",
    ".",
    "?",
    "!",
    ",",
    "\n",
    "\n\n",
    "(",
    "日本",
]
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.sampled_from(PIECES),
        st.sampled_from(["My answer is yes.", "And so it ends.", "12", "\ud800", "\u2028", "\r\n", "\x00"]),
    ),
    max_size=20,
).map("".join)


@pytest.mark.parametrize("name", sorted(CHECKS))
@settings(max_examples=40)
@given(text=TEXTS)
def test_any_text_gets_a_verdict_with_the_same_parts_and_strict_implies_loose(name, text):
    kwargs, _ = EXAMPLES[name]
    verdict = judge("constraints", text, reference((name, kwargs)))
    assert verdict.error is None
    assert verdict.parts.keys() == {"strict", "loose", "strict/0", "loose/0"}
    assert verdict.parts["strict"] == verdict.parts["strict/0"] == verdict.score <= verdict.parts["loose"]


HOSTILE = {
    "open brackets": "[" * 60_000,
    "deep JSON": '{"a":' * 16_000 + "1" + "}" * 16_000,
    "lines": "\n" * MAX_LENGTH,
    "bullets": "*\n" * (MAX_LENGTH // 2),
    "asterisks": "*" * MAX_LENGTH,
    "titles": "<<" * (MAX_LENGTH // 2),
    "points": "." * MAX_LENGTH,
    "points in words": ".x" * (MAX_LENGTH // 2),
    "initials": "A. " * (MAX_LENGTH // 3),
    "marks in words": "!)x" * (MAX_LENGTH // 3),
    "spaces": " " * (MAX_LENGTH - 1) + "x",
    "one word": "A" * MAX_LENGTH,
    "addresses": "a@" * (MAX_LENGTH // 2),
    "digits": "7" * MAX_LENGTH,
    "apostrophes": "'" * MAX_LENGTH,
    "quotes": '",' * (MAX_LENGTH // 2),
    "postscripts": "p. " * (MAX_LENGTH // 3),
    "hyphens": "a--" * (MAX_LENGTH // 3),
    "questions": "Question 1)\n" * (MAX_LENGTH // 12),
}


@pytest.mark.parametrize(("family", "length"), [(IFEVAL_CASES, MAX_LENGTH), (IFBENCH_CASES, MAX_LENGTH // 5)])
def test_hostile_texts_are_judged_against_all_instructions_within_the_limits_of_a_pool(family, length):
    everything = reference(*((name, EXAMPLES[name][0]) for name in family))
    with Pool(1, timeout=20, memory_bytes=1 << 29) as pool:
        verdicts = pool.judge([Job("constraints", text[:length], everything) for text in HOSTILE.values()])
    assert [verdict.error for verdict in verdicts] == [None] * len(HOSTILE)
    assert not any(verdict.score for verdict in verdicts)


def test_a_text_of_a_million_characters_is_refused_at_once():
    verdict = judge("constraints", "a, " * 400_000, TWO)
    assert (verdict.score, verdict.error) == (0.0, None)
    assert verdict.reason.startswith("the response has 1200000 characters")


def test_a_text_has_the_same_language_in_every_process_and_thread_under_any_locale():
    texts = ["Hello world", "la casa", "Today we visit the Louvre", "12345", "ok", "日本", "de het een le la"]
    expected = [detect_language(text) for text in texts]
    assert expected[3] is None
    code = f"from rlvr_jax.verifiers.constraints.language import detect_language as d; print([d(t) for t in {texts!a}])"
    environment = os.environ | {"PYTHONHASHSEED": "7", "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"}
    fresh = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == repr(expected)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(detect_language, texts * 10)) == expected * 10
