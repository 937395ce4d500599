"""Which answer of a completion counts: for each rule what it accepts, and what is nearly the same and has none."""

import pytest

from experiments.benchmarks.verifier_corpus import corpus
from rlvr_jax.verifiers import verify


def score(completion: str, reference: str, **options) -> float:
    verdict = verify("math", completion, reference, **options)
    assert verdict.error is None
    return verdict.score


@pytest.mark.parametrize(
    "completion",
    [
        "<answer>Answer: 63</answer>",
        "<answer>The answer is 63.</answer>",
        "<answer>Final answer: $63$</answer> That is all.",
        "<answer>**The final answer is 63**</answer>",
        "The final answer is <answer>63</answer>",
        "The answer is 7? No. <answer>So the total is: the answer is 63</answer>",
        r"<answer>Therefore the answer is \boxed{63}.</answer>",
    ],
)
def test_a_phrase_in_tags_is_the_answer_of_the_tags(completion):
    assert score(completion, "63") == 1.0
    assert score(completion, "7") == 0.0


@pytest.mark.parametrize(
    "content", ["The answer is not 63.", "Answer: 63 or 64", "Answer: maybe 63 or so", "63 is wrong", "The answer: 64"]
)
def test_a_phrase_in_tags_that_hedges_or_denies_is_no_answer(content):
    assert score(f"<answer>{content}</answer>", "63") == 0.0
    assert score(f"The answer is 63. <answer>{content}</answer>", "63") == 0.0


def test_tags_are_no_part_of_an_answer_where_only_phrases_count():
    assert score("<answer>The answer is 63</answer>", "63", formats=("phrase",)) == 1.0
    assert score("The final answer is <answer>63</answer>", "63", formats=("phrase",)) == 1.0


@pytest.mark.parametrize(
    "ending",
    [
        *(
            "63, as 70 - 7 = 63.",
            "63, since 9 times 7 is 63.",
            "63 because 60 + 3 = 63",
            "63, which we get from 9 * 7.",
        ),
        *(r"$63$, as $x = 7$.", r"$63$ since $n \neq 5$.", r"63, where $k = 7$", "63 (since 7 * 9 = 63)."),
        *("63, by adding 60 and 3.", "**63**, because the rest is 7", "63, given that there are 7 boxes."),
    ],
)
def test_a_reason_after_the_answer_is_no_part_of_it(ending):
    for lead in ("The answer is ", "So the final answer is: ", "Answer: "):
        assert score(lead + ending, "63") == 1.0
        assert score(lead + ending, "7") == 0.0


def test_a_reason_in_a_line_or_a_tag_is_no_part_of_the_answer():
    for completion in ("#### 63 (since 7 * 9 = 63)", "<answer>63, because 60 + 3 = 63</answer>"):
        assert score(completion, "63") == 1.0
        assert score(completion, "3") == 0.0


@pytest.mark.parametrize(
    "ending",
    [
        *("63, as well as 64.", "63, which is wrong.", "63, since it may also be 64", "63, 64, as both work."),
        *("63 or 64, since both work", "63 because I am not sure", "63, when x = 1, and 64, when x = 2."),
    ],
)
def test_a_reason_does_not_hide_a_hedge(ending):
    assert score("The answer is " + ending, "63") == 0.0
    assert score("The answer is " + ending, "64") == 0.0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *[("63 wet dogs.", "63"), ("21 times.", "21"), ("8 jars of fig jam.", "8"), ("4 pills a night.", "4")],
        *[
            ("11 weeks old.", "11"),
            ("$9.25 on paint.", "9.25"),
            (r"\$9.25 on paint", "9.25"),
            ("5 more than Ann.", "5"),
        ],
        *[("1,250 people in all!", "1250"), ("63 of the tickets.", "63"), ("-3 degrees outside", "-3")],
        *[("7.5 hours per week.", "7.5"), ("\u20ac40 a month", "40"), ("63 big boxes in the shed", "63")],
    ],
)
def test_words_after_a_number_name_what_is_counted(text, number):
    for completion in (f"The answer is {text}", f"Thus\n#### {text}", f"<answer>{text}</answer>"):
        assert score(completion, number) == 1.0
        assert score(completion, number + "1") == 0.0


@pytest.mark.parametrize(
    "text",
    [
        *(
            "6 dozen.",
            "6 times x",
            "6 times seven.",
            "6 pi",
            "6 xy",
            "6 hundred",
            "6 or so",
            "6 at most",
            "6 and a half",
        ),
        *("6 less than the total", "6 is too small", "6 boxes, 7 bags", "6 plus tax", "6 factorial", "6 if it rains"),
        *(
            "6 boxes or bags",
            "6 perhaps",
            "6 squared",
            "6 sin x",
            "6 zillion",
            "6 x",
            "6 tenths of it",
            "6 not counting",
        ),
    ],
)
def test_words_that_change_a_number_are_no_unit(text):
    for completion in (f"The answer is {text}", f"Thus\n#### {text}", f"<answer>{text}</answer>", rf"\boxed{{{text}}}"):
        assert score(completion, "6") == 0.0


def test_a_unit_that_is_known_must_be_that_of_the_reference():
    assert score("The answer is 6 meters of rope.", r"6\text{ m}") == 1.0
    assert score("The answer is 6 meters of rope.", r"6\text{ cm}") == 0.0
    assert score("The answer is 6 years old.", "6 years old") == 1.0


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        ("The largest $n$ is 28.", "28"),
        ("The perimeter of $PQRS$ is 28.", "28"),
        ("The perimeter of $PQRS$ is $28$ cm.", "28"),
        (r"The value of $a$ that makes $f$ continuous is $\frac{2}{7}$.", "2/7"),
        (r"The solutions are $x = 2$ and $x = 7$.", "2, 7"),
        ("The number of ways is 28, where $n$ is 8.", "28"),
        ("The remainder equals 28", "28"),
        ("The probability that $X$ is even is: 2/7", "2/7"),
        ("\u5171\u670928\u4e2a", "28"),
    ],
)
def test_the_subject_of_a_sentence_is_no_answer(sentence, value):
    assert score(f"Final Answer: {sentence}", value) == 1.0
    assert score(f"Final Answer: {sentence}", "8") == 0.0


@pytest.mark.parametrize(
    "sentence",
    [
        *("The largest $n$ is not 28.", "The largest $n$ is 28 or 29.", "The largest $n$ is at most $28$."),
        *("It is at least $28$.", "It is less than 28.", "It is half of 28.", "It is a multiple of 28.", "$n$ + 28"),
        *("The largest is 28 and the smallest is 2.", "It may be that $n$ is 28.", "two times 28", "sin 28", "x + 28"),
        "The third part of the number 28",
        *("The number before 28", "All but 28", "Some number like 28", "negative 28", "The 28th prime", "log 28"),
    ],
)
def test_a_sentence_that_limits_denies_or_changes_a_number_does_not_give_it(sentence):
    assert score(f"Final Answer: {sentence}", "28") == 0.0


@pytest.mark.parametrize(
    "formula",
    [
        r"\left(\frac{4}{9},\frac{1}{7}\right)",
        r"\left( \dfrac{4}{9}, \dfrac{1}{7} \right)",
        r"\displaystyle\left(\tfrac{4}{9},\,\tfrac{1}{7}\right)",
    ],
)
def test_names_of_commands_are_no_words(formula):
    for opening, closing in (("$", "$"), (r"\(", r"\)"), ("$$", "$$")):
        completion = f"Hence the point of contact is {opening}{formula}{closing}."
        assert score(completion, "(4/9, 1/7)") == 1.0
        assert score(completion, "(4/9, 1/8)") == 0.0


@pytest.mark.parametrize(
    "text", ["It costs $5 to $9.", "The answer is $5 to $9.", "The answer is $5 for one and $9 for two."]
)
def test_what_stands_between_two_prices_is_no_formula(text):
    assert score(text, "5") == 0.0
    assert score(text, "9") == 0.0


@pytest.mark.parametrize(
    "heading",
    [
        "#### Check",
        "#### Step 5: check it",
        "#### 5. Check it",
        "######",
        "#### Why 5 fails",
        "#### (a) Check",
        "### 5",
    ],
)
def test_a_heading_does_not_replace_an_answer_before_it(heading):
    for answer in (r"So $\boxed{63}$.", "<answer>63</answer>", "The answer is 63.", "#### 63"):
        assert score(f"{answer}\n\n{heading}\nIndeed 60 + 3 = 63.", "63") == 1.0
        assert score(f"{answer}\n\n{heading}", "63") == 1.0


def test_a_line_with_a_value_replaces_an_answer_before_it():
    for line in ("#### 64", "#### $x = 64$", r"#### \boxed{64}", "#### 64 eggs", "#### **64**", "#### Answer: 64"):
        assert score(r"So $\boxed{63}$." + f"\n{line}", "63") == 0.0
        assert score(r"So $\boxed{63}$." + f"\n{line}", "64") == 1.0
    for line in ("#### 63 or 64", "#### maybe 64", "#### not 63"):
        for gold in ("63", "64"):
            assert score(r"So $\boxed{63}$." + f"\n{line}", gold) == 0.0


def test_a_line_of_words_at_the_end_is_an_answer_where_there_is_no_other():
    assert score("So it must be\n#### Tuesday", "Tuesday") == 1.0
    assert score("#### Tuesday\nSo it is as we thought.", "Tuesday") == 0.0
    assert score("\\boxed{Monday}\n#### Tuesday", "Tuesday") == 0.0


@pytest.mark.parametrize(
    "completion",
    [
        r"\boxed{63} is not the answer; it is 64.",
        r"$\boxed{63}$ is wrong. It is 64.",
        r"The answer is \boxed{64}, not \boxed{63}.",
        r"We find \boxed{64} rather than \boxed{63}.",
        r"\boxed{64}. The value \boxed{63} isn't right.",
        r"\boxed{63}? No, it is 64.",
        r"First \boxed{63}, which is not a solution, then \boxed{64}.",
    ],
)
def test_a_box_that_is_denied_does_not_count(completion):
    assert score(completion, "63") == 0.0
    assert score(completion, "64") == 1.0


@pytest.mark.parametrize(
    ("completion", "counts"),
    [
        (r"The answer was \boxed{63}, no, wait, that is wrong", False),
        (r"\boxed{63}. Wait, that's wrong", False),
        (r"\boxed{63}. Hmm, let me check. That is wrong.", True),
        (r"\boxed{63}, no, wait", True),
        (r"\boxed{63}. No, wait, it is 64.", True),
        (r"\boxed{63}. No, wait, it is \boxed{64}.", False),
        (r"\boxed{63}. Hmm. That is wrong. Final answer: 64", False),
    ],
)
def test_a_box_that_is_withdrawn_later_counts_until_another_answer_follows(completion, counts):
    assert score(completion, "63") == counts


@pytest.mark.parametrize(
    "rest",
    [
        ", which can't be simplified.",
        " is not 7.",
        ", which is not a prime.",
        ". This can't be reduced any further.",
        "!",
    ],
)
def test_what_else_is_said_of_a_box_does_not_deny_it(rest):
    assert score(rf"So it is $\boxed{{63}}${rest}", "63") == 1.0


@pytest.mark.parametrize("last_number", [False, True])
@pytest.mark.parametrize("text", ["The answer is not \\boxed{63}.", "It isn't 63", "It is never \\boxed{63}"])
def test_what_is_denied_is_no_last_resort(text, last_number):
    assert score(text, "63", last_number=last_number) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        *(
            "The answer is (C).",
            "The answer is C, because 7 is odd.",
            "The answer is **C**.",
            "The answer is (C), not (D).",
        ),
        *("Hence option (C) is correct.", "So choice C is the right answer.", "The correct option is C: 7 apples."),
        *(
            "I would choose C.",
            "#### C",
            "#### (C)",
            r"\boxed{C}",
            "<answer>(C) 7</answer>",
            "C is wrong, no: the answer is C",
        ),
    ],
)
def test_the_letter_of_an_option_in_prose(text):
    assert score(text, "C") == 1.0
    assert score(text, "D") == 0.0


@pytest.mark.parametrize(
    "text",
    [
        *(
            "The answer is (C) or (D).",
            "The answer is C or D.",
            "The answer is (C), or perhaps (D).",
            "The answer is C/D.",
        ),
        *("Option (C) is not correct.", "Option C is correct if option D is.", "Options C and D are correct."),
        *("The answer is (C), not sure.", "Either option C is correct or option D is correct.", "The answer isn't C."),
        *("#### C or D", "I would choose C or D.", "The answer is (C) (D)."),
    ],
)
def test_several_options_are_no_answer(text):
    for letter in "CD":
        assert score(text, letter) == 0.0


def test_several_boxes_for_several_values():
    for completion in (
        r"The small root is \boxed{2} and the large one is \boxed{7}.",
        r"$x_1 = \boxed{2}$; $x_2 = \boxed{7}$",
        "Roots:\n- first: $\\boxed{2}$\n- second: $\\boxed{7}$\n",
    ):
        assert score(completion, "2, 7") == 1.0
        assert score(completion, r"\{7, 2\}") == 1.0
        assert score(completion, "2, 8") == 0.0
        assert score(completion, "2") == 0.0
    assert score(r"We get \boxed{2}. Wait, actually it is \boxed{7}.", "2, 7") == 0.0
    assert score(r"Step 1 gives \boxed{2}, so the sum is \boxed{7}.", "2, 7") == 0.0
    assert score(r"\boxed{1}, the next \boxed{2}, the next \boxed{7}", "2, 7") == 0.0
    assert score(r"It is \boxed{2}, not \boxed{7}.", "2, 7") == 0.0


@pytest.mark.parametrize(
    "completion",
    [
        "It is 1, 2, 3, 4, 5, 6 or 7.",
        "The answer is 1. The answer is 2. The answer is 3 or 7.",
        " ".join(rf"\boxed{{{n}}}" for n in range(1, 8)),
        "".join(f"<answer>{n}</answer>\n" for n in range(1, 8)),
        "#### " + " ".join(map(str, range(1, 8))),
        "The answer is between 1 and 7.",
        "The answer is 7. Or 1.",
        "The answer is 1. Perhaps 7, though.",
        "The answer is either 7, as 3 + 4 = 7, or 1.",
        "Final Answer: 1; 2; 3; 7, which are all of them.",
        "\\boxed{\\text{one of } 1, 7}",
        "The answer could be 7",
        "#### 7 (or 1)",
        "#### 7?",
    ],
)
@pytest.mark.parametrize("last_number", [False, True])
def test_a_list_of_candidates_earns_nothing(completion, last_number):
    for reference in ("1", "7"):
        assert score(completion, reference, last_number=last_number) == 0.0


@pytest.mark.parametrize("long", [False, True])
def test_written_completions_are_judged_as_they_are_meant(long):
    items = corpus(seed=11, long=long, rounds=1)
    assert len(items) > 100
    assert 0.4 < sum(item.right for item in items) / len(items) < 0.6
    assert items == corpus(seed=11, long=long, rounds=1)
    for item in items:
        assert score(item.completion, item.gold) == item.right, item


@pytest.mark.parametrize(
    "rest",
    [
        "Hmm, that's false. I get 11 now.",
        "Oh no, this is incorrect, so the answer is 11.",
        "Just kidding, it is 11.",
        "Never mind, it must be 11.",
        "Sorry, that can\u2019t be right: the answer is 11.",
        "Wait, wait, it's not the answer.",
    ],
)
def test_a_box_that_the_next_sentence_takes_back_is_no_answer(rest):
    assert verify("math", f"So $\\boxed{{12}}$. {rest}", "12").score == 0


@pytest.mark.parametrize(
    "rest",
    [
        "Oh, that's right indeed.",
        "It's wrong to stop at the first factor.",
        "No, there is no other.",
        "Wait, is it? Yes: 7 + 5 = 12, which is correct.",
        "It is not 11.",
        "It's not possible to do it in fewer.",
    ],
)
def test_a_box_that_the_next_sentence_confirms_stays_the_answer(rest):
    assert verify("math", f"So $\\boxed{{12}}$. {rest}", "12").score == 1


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (r"So $x = -\boxed{3}$.", "-3"),
        (r"-\boxed{3}", "-3"),
        (r"The answer is -\boxed{\frac{1}{2}}.", "-0.5"),
        (r"$-\boxed{-3}$", "3"),
        (r"\[x \approx -\boxed{3}\]", "-3"),
        (r"$5 -\boxed{3} = 2$", "3"),
        (r"$4 + \boxed{7} = 11$", "7"),
        ("The list:\n- \\boxed{3}", "3"),
        ("- \\boxed{3}", "3"),
        (r"<answer>-\boxed{3}</answer>", "-3"),
    ],
)
def test_a_sign_before_a_box_belongs_to_the_answer_and_an_operator_or_a_bullet_does_not(text, gold):
    assert score(text, gold) == 1.0
    assert score(text, str(-float(gold))) == 0.0
