"""Sums and constrained sentences, the problems for small pretrained models."""

import re
from collections import Counter

import pytest

from rlvr_jax.tasks import make_task
from rlvr_jax.tasks.sentences import KINDS, TOPICS, TRAINED, WORDS
from rlvr_jax.verifiers import verify


@pytest.mark.parametrize(("digits", "terms"), [(1, 2), (3, 4)])
def test_a_sum_is_of_the_numbers_in_its_problem_and_its_demonstration_is_right(digits, terms):
    task, seen = make_task("sums", {"digits": digits, "terms": terms}), {"train": set(), "heldout": set()}
    for split in seen:
        for index in range(30):
            example = task.example(split, index)
            numbers = [int(x) for x in re.findall(r"\d+", example.prompt)]
            assert len(numbers) == terms
            assert all(len(str(number)) == digits for number in numbers)
            assert int(example.reference) == sum(numbers)
            assert verify(task.verifier, task.demonstration(example, 0), example.reference).score == 1
            assert verify(task.verifier, f"#### {sum(numbers) + 1}", example.reference).score == 0
            seen[split].add(example.prompt)
    assert not seen["train"] & seen["heldout"]


SENTENCES = {  # a right answer for each kind, and a wrong one
    "short": ("My {topic} is far away.", "My {topic} " + "is very " * 8 + "far away."),
    "quoted": ('"My {topic} is far away."', "My {topic} is far away."),
    "word": ("My {topic} is {word} and far.", "My {topic} is far away."),
    "end": ("My {topic} is far and {word}.", "The {word} {topic} is far away."),
    "long": ("I know that my {topic} is " + "very " * 8 + "far away.", "My {topic} is " + "very " * 4 + "far."),
    "lower": ("i know that my {topic} is far away from here.", "I know that my {topic} is far away from here."),
    "twice": ("My {topic} is {word} and {word}.", "My {topic} is {word} and far."),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_sentence_must_meet_its_constraint_name_its_topic_and_say_something(kind, split):
    task = make_task("sentences", {"kinds": [kind]})
    for index in range(8):
        example = task.example(split, index)
        topic = re.search(r"with the word (\w+)\.", example.prompt)[1]
        word = re.search(r"(\w+)\.$", example.prompt.strip().replace(" at least twice", ""))[1]
        assert topic in TOPICS[split].split()
        right, wrong = (text.format(topic=topic, word=word) for text in SENTENCES[kind])
        judged = [verify("constraints", text, example.reference).score for text in (right, wrong)]
        assert judged == [1, 0], (example.prompt, right, wrong)
        assert verify("constraints", right.replace(topic, "pen"), example.reference).score == 0
        assert verify("constraints", " ".join(right.split()[:2]), example.reference).score == 0


def test_splits_share_neither_topics_nor_words_and_all_trained_kinds_are_asked_for():
    assert not set(TOPICS["train"].split()) & set(TOPICS["heldout"].split())
    assert not set(WORDS["train"].split()) & set(WORDS["heldout"].split())
    task = make_task("sentences")
    first = Counter(task.example("train", i).reference["instruction_id_list"][0] for i in range(60))
    assert len(first) == len(TRAINED)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sums", {"digits": 0}, "digits must be from 1 to 9 .* not 0"),
        ("sums", {"terms": 1}, "terms at least 2, not 3 and 1"),
        ("sums", {"heldout_share": 1.0}, "heldout_share .* 1.0"),
        ("sentences", {"kinds": ["shout"]}, r"kinds must be some of short, .*\['shout'\]"),
        ("sentences", {"kinds": []}, "kinds must be"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_task(name, {"digits": 3} | options if name == "sums" else options)
