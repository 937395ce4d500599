"""Decontamination: what counts as a match, what does not, and what it finds in the real data sets."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.tasks import decontamination
from rlvr_jax.tasks.decontamination import KINDS, Match, find_matches
from tests.data.read import rows

HORSES = (
    "A horse 24 feet from the center of a merry-go-round makes 32 revolutions. In order to travel the same distance, "
    "how many revolutions would a horse 8 feet from the center have to make?"
)
INSTRUCTION = "\nReason step by step. Write the answer, a number, on the last line after ####.\n"
WORDS = [first + second for first in "bcdfghjklmnp" for second in ("ab", "eg", "in", "os", "ut", "ya")]


def kinds(train, heldout, **options):
    return [(match.kind, match.overlap) for match in find_matches([("t", train)], [("h", heldout)], **options)]


def numbered(texts, name):
    return [(f"{name}{place}", text) for place, text in enumerate(texts)]


def sentences(seed, count, length=30):
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=length)) for _ in range(count)]


@pytest.mark.parametrize(
    ("train", "heldout"),
    [
        (HORSES, HORSES),
        (HORSES, HORSES.upper() + "  "),
        ("If $x^{2}+3x=5$, what is $x$?", "If\n$x^2 + 3x = 5,$ what is $x?$"),
        (r"Compute $\displaystyle\left(\dfrac{1}{2}\right)^3$.", r"Compute \(\!(\frac{1}{2})^3\)"),
        (r"Find $\text{lcm}(4,\,6)$", r"Find $\mathrm{lcm}(4, 6)$"),
        ("It costs $1,080.", "It costs \uff041080"),  # the full-width dollar sign
        ("求 3 和 5 的和", "求3和5的和。"),
    ],
)
def test_what_differs_only_in_how_it_is_set_is_exact(train, heldout):
    assert kinds(train, heldout) == kinds(heldout, train) == [("exact", 1.0)]


@pytest.mark.parametrize(
    ("train", "heldout"),
    [
        (HORSES, HORSES.replace("24", "64").replace("32", "27")),
        ("If $x^2 + 3x = 5$, what is $x$?", "If $x^2 - 4x = 5.5$, what is $x$?"),  # a sign
        ("A pen costs 1,080 cents.", "A pen costs 3.50 cents"),
    ],
)
def test_the_same_text_with_other_numbers_or_signs_is_a_match_of_its_own(train, heldout):
    assert kinds(train, heldout) == kinds(heldout, train) == [("numbers", 1.0)]


@pytest.mark.parametrize(
    ("train", "heldout"),
    [
        ("What is the sum of 3 and 5?", "What is the product of 3 and 5?"),
        ("3 + 5 =", "8 - 2 ="),  # nothing but numbers
        ("", ""),
        (HORSES, "What is the capital of France?"),
        ("求 3 和 5 的和", "求 3 和 5 的积"),
    ],
)
def test_different_problems_do_not_match(train, heldout):
    found = kinds(train, heldout)
    assert found == ([("exact", 1.0)] if train == heldout else [])


def test_overlap_is_the_share_of_the_held_out_prompts_ngrams():
    (train,) = sentences(0, 1, 25)
    inside = " ".join(train.split()[3:20])  # 17 words: 10 n-grams, all shared
    assert kinds(train + " tail", "extra " + inside, n=8) == [("ngrams", 10 / 11)]
    assert kinds("extra " + inside, train + " tail", n=8) == [("ngrams", 10 / 19)]
    assert kinds("extra " + inside, train + " tail", n=8, threshold=0.53) == []
    assert kinds("extra " + inside, train + " tail", n=8, threshold=10 / 19) == [("ngrams", 10 / 19)]


def test_ngrams_with_other_numbers_are_a_kind_of_their_own_and_formulas_do_not_count_for_it():
    longer = "Now think. " + HORSES.replace("24", "64").replace("32", "27").replace("8", "9")
    ((kind, overlap),) = kinds(HORSES, longer)
    assert kind == "masked_ngrams"
    assert 0.9 < overlap < 1
    formula = " + ".join(f"{number} x y z" for number in range(3, 20))
    assert kinds(f"Simplify {formula}", f"Please factor {formula.replace('1', '2')}") == []


@pytest.mark.parametrize("seed", range(5))
def test_overlaps_equal_those_of_sets_of_ngrams(seed):
    chance = random.Random(seed)
    pool = sentences(seed, 6, 12)
    texts = [" ".join(chance.choices(pool, k=chance.randrange(4))) for _ in range(40)]
    train, heldout = numbered(texts[:25], "t"), numbered(texts[25:], "h")

    def grams(text):
        words = text.split()
        return {tuple(words[place : place + 5]) for place in range(len(words) - 4)}

    expected = {}
    for heldout_id, text in heldout:
        for train_id, other in train:
            if text.split() == other.split():
                expected[train_id, heldout_id] = 1.0
            elif grams(text) and len(grams(text) & grams(other)) >= 0.3 * len(grams(text)):
                expected[train_id, heldout_id] = len(grams(text) & grams(other)) / len(grams(text))
    found = find_matches(train, heldout, n=5, threshold=0.3, boilerplate_share=1.0)
    assert {(match.train_id, match.heldout_id): match.overlap for match in found} == expected
    assert len(found) == len(expected) > 20


def test_a_pair_is_reported_once_in_the_order_of_held_out_prompts_then_kinds():
    (a, b, c, d) = sentences(1, 4)
    train = [("part", f"{a} {b}"), ("other numbers", f"{a} 17"), ("same", f"{a} 16"), ("nothing", d)]
    heldout = [("c", c), ("a", f"{a} 16.")]
    found = find_matches(train, heldout)
    assert [(m.heldout_id, m.train_id, m.kind) for m in found] == [
        ("a", "same", "exact"),
        ("a", "other numbers", "numbers"),
        ("a", "part", "ngrams"),
    ]


def test_an_instruction_that_every_prompt_has_neither_makes_nor_hides_a_match():
    questions = [f"{text}?" for text in sentences(2, 12, 6)]
    train = numbered([text + INSTRUCTION for text in questions[:6]], "t")
    assert find_matches(train, numbered([text + INSTRUCTION for text in questions[6:]], "h")) == []
    heldout = numbered(["Solve this, please, and put the answer in a box: " + text for text in questions[5:]], "h")
    assert [(m.train_id, m.heldout_id, m.kind) for m in find_matches(train, heldout)] == [("t5", "h0", "exact")]


def test_text_that_many_prompts_of_one_set_share_is_boilerplate():
    (common,) = sentences(3, 1, 12)
    train = numbered([f"{common} {text}" for text in sentences(4, 11, 4)] + sentences(5, 50), "t")
    heldout = numbered([f"{common} {text}" for text in sentences(6, 1, 3)] + sentences(7, 50), "h")
    assert find_matches(train, heldout) == []  # eleven training prompts have it
    assert len(find_matches(train, heldout, boilerplate_share=0.2)) == 11
    assert {m.train_id for m in find_matches(train[1:], heldout)} == {f"t{place}" for place in range(1, 11)}


def test_a_text_that_many_problems_fill_with_numbers_is_the_task_and_not_a_leak():
    train = numbered([f"Sum the digits of {number}, please." for number in range(100, 120)], "t")
    heldout = numbered([f"Sum the digits of {number}, please." for number in range(119, 140)], "h")
    found = find_matches(train, heldout)
    assert found == [Match("t19", "h0", "exact", 1.0, "Sum the digits of 119, please")]


def test_the_shared_text_is_a_run_of_the_held_out_prompt():
    (a, b, c) = sentences(8, 3, 15)
    (match,) = find_matches([("t", f"{b} {a.upper()}")], [("h", f"{c[:20]} {a.replace(' ', ',  ')}; {c[:10]}")])
    assert match.shared == a.replace(" ", ", ")[:160]


@given(
    st.lists(st.text(max_size=60), max_size=8),
    st.lists(st.text(max_size=60), max_size=8),
    st.integers(1, 4),
    st.floats(0.01, 1),
)
@settings(max_examples=150, deadline=None)
def test_any_text_is_taken_and_equal_texts_always_match(train, heldout, n, threshold):
    found = find_matches(numbered(train, "t"), numbered(heldout, "h"), n, threshold)
    assert all(threshold <= match.overlap <= 1 and match.kind in KINDS for match in found)
    pairs = {(match.train_id, match.heldout_id) for match in found if match.kind == "exact"}
    equal = {(f"t{i}", f"h{j}") for i, a in enumerate(train) for j, b in enumerate(heldout) if a == b}
    framed = max(len({*train}), len({*heldout})) >= 3  # what all of a set have in common may be taken off it
    assert equal <= pairs or framed


def test_blocks_and_progress_cover_every_held_out_prompt(monkeypatch):
    texts = sentences(9, 20)
    expected = find_matches(numbered(texts, "t"), numbered(texts, "h"))
    monkeypatch.setattr(decontamination, "_BLOCK", 7)
    steps = []
    assert find_matches(numbered(texts, "t"), numbered(texts, "h"), progress=steps.append) == expected
    assert steps == [7, 7, 6]
    assert [match.kind for match in expected] == ["exact"] * 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"threshold": 0.0}, "threshold must be"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"boilerplate_share": 1.5}, "boilerplate_share must be"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        find_matches([], [], **options)


def test_two_prompts_with_one_id_are_refused():
    with pytest.raises(ValueError, match="two held-out prompts have the id 'a'"):
        find_matches([("a", "x")], [("a", "x"), ("a", "y")])


@pytest.fixture(scope="module")
def math_problems(data_sets):
    problems = rows(data_sets / "math" / "train_12k.jsonl")
    return [
        [(r["unique_id"], r["problem"]) for r in problems if r["unique_id"].startswith(s)] for s in ("train", "test")
    ]


def test_it_finds_the_known_variants_between_the_training_and_the_test_problems_of_math(math_problems):
    found = find_matches(*math_problems)
    by_kind = {kind: {(m.train_id, m.heldout_id) for m in found if m.kind == kind} for kind in KINDS}
    assert by_kind["exact"] == {
        ("train/algebra/777.json", "test/algebra/1674.json"),
        ("train/algebra/517.json", "test/algebra/636.json"),
        ("train/algebra/2197.json", "test/intermediate_algebra/965.json"),
        ("train/geometry/6032.json", "test/precalculus/24307.json"),
    }
    # The merry-go-round of HORSES with other numbers, and the bookstore with another demand curve.
    assert ("train/algebra/2034.json", "test/algebra/1169.json") in by_kind["numbers"]
    assert ("train/algebra/488.json", "test/algebra/1095.json") in by_kind["numbers"]
    # The same sentence about another word, and about the distance from the origin to another point.
    assert ("train/counting_and_probability/1049.json", "test/counting_and_probability/587.json") in by_kind["ngrams"]
    assert ("train/algebra/2171.json", "test/algebra/1023.json") in by_kind["ngrams"]
    # "in how many ways can a 2-person committee be chosen", from a group of another size and with a president.
    assert ("train/prealgebra/236.json", "test/prealgebra/885.json") in by_kind["masked_ngrams"]


@pytest.mark.whole
def test_it_finds_as_many_variants_between_all_problems_of_math_as_before(math_problems):
    train, heldout = math_problems
    assert (len(train), len(heldout)) == (7500, 4500)
    found = find_matches(train, heldout)
    assert {kind: len({m.heldout_id for m in found if m.kind == kind}) for kind in KINDS} == {
        "exact": 4,
        "numbers": 369,
        "ngrams": 210,
        "masked_ngrams": 407,
    }


def test_planted_variants_of_math_are_all_found_and_nothing_else(math_problems):
    train, _ = math_problems
    chance = random.Random(0)
    long = [(id, text) for id, text in train if 20 <= len(text.split()) <= 60 and "[asy]" not in text]
    planted = chance.sample(long, 14)
    heldout = [(id, f"Here is a problem for you: {text} Thank you.") for id, text in planted]
    found = find_matches(train, heldout)
    best = {match.heldout_id: match for match in reversed(found)}
    assert {id: match.train_id for id, match in best.items()} == {id: id for id, _ in planted}
