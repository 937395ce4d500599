"""Reward design as data: weighted named terms, and samples that could not be judged."""

import itertools
import re
import sys

import numpy as np
import pytest

from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.rewards import TERMS, reward, term_of
from rlvr_jax.tasks import Example
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import episode, grouped
from tests.verifiers.misbehaving import Unprintable

EPISODES = [episode(3), episode(8, finish="length"), episode(5), episode(8, finish="turns")]
VERDICTS = [
    Verdict(1.0, {"format": 1.0}),
    Verdict(0.25, {"format": 0.5, "style": 1.0}),
    Verdict(0.0, {"format": 0.0}),
    Verdict(0.0, error="TimeoutError: no verdict within 10 s"),
]


def test_the_reward_is_the_weighted_sum_of_the_terms_and_each_is_reported_weighted():
    rewards = reward((("score", 1.0), ("format", 0.5), ("truncated", -2.0)), grouped(VERDICTS, EPISODES, 2))
    assert list(rewards.terms) == ["score", "format", "truncated"]
    np.testing.assert_allclose(rewards.terms["score"], [1, 0.25, 0, 0])
    np.testing.assert_allclose(rewards.terms["format"], [0.5, 0.25, 0, 0])
    np.testing.assert_allclose(rewards.terms["truncated"], [0, -2, 0, 0])
    np.testing.assert_allclose(rewards.values, [1.5, -1.5, 0, 0])
    np.testing.assert_array_equal(rewards.judged, [True, True, True, False])
    assert rewards.verdicts == tuple(VERDICTS)


def test_rewards_and_terms_are_float32():
    rewards = reward((("score", 1.0), ("length", 0.1)), grouped(VERDICTS, EPISODES, 4))
    assert {x.dtype for x in (rewards.values, *rewards.terms.values())} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("score", [1, 0.25, 0, 0]),
        ("truncated", [0, 1, 0, 0]),
        ("length", [3, 8, 5, 0]),
        ("turns", [1, 1, 1, 0]),
        ("style", [0, 1, 0, 0]),
    ],
)
def test_each_term_is_what_its_name_says_and_0_for_a_verdict_without_that_part(term, expected):
    rewards = reward(((term, 1.0),), grouped(VERDICTS, EPISODES, 4))
    np.testing.assert_allclose(rewards.values, expected)


@pytest.mark.parametrize("term", [*TERMS, "format"])
def test_a_sample_that_could_not_be_judged_has_no_reward_whatever_the_terms_say(term):
    for weight in (1.0, -1.0):
        rewards = reward(((term, weight),), grouped(VERDICTS, EPISODES, 4))
        assert rewards.judged.tolist() == [True, True, True, False]
        assert rewards.values[3] == rewards.terms[term][3] == 0


def test_a_step_in_which_no_sample_could_be_judged_has_no_rewards_even_for_terms_that_only_verdicts_know():
    failed = [Verdict(0.0, error="it died")] * 4
    rewards = reward((("score", 1.0), ("format", 1.0)), grouped(failed, EPISODES, 2))
    assert not rewards.judged.any()
    assert not rewards.values.any()


@pytest.mark.parametrize(
    ("value", "weight", "message"),
    [
        (np.nan, 1.0, "the reward is not finite: the term 'taste' is nan, its weight 1"),
        (-np.inf, 0.5, "the term 'taste' is -inf"),
        (1e38, 10.0, "the term 'taste' is 1e+38, its weight 10"),
        ("sweet", 1.0, "the reward term 'taste' raised ValueError"),
        (SystemExit(0), 1.0, "the reward term 'taste' raised SystemExit: 0"),
        (Unprintable(), 1.0, "the reward term 'taste' raised Unprintable"),
    ],
)
def test_a_term_that_is_no_finite_number_is_the_error_of_its_sample_alone(value, weight, message, monkeypatch):
    def taste(_, episode):
        if len(episode.tokens) == 3 and isinstance(value, BaseException):
            raise value
        return value if len(episode.tokens) == 3 else 0.5

    monkeypatch.setattr(sys.modules["rlvr_jax.learner.rewards"], "TERMS", {**TERMS, "taste": taste})
    rewards = reward((("score", 1.0), ("taste", weight)), grouped(VERDICTS, EPISODES, 4))
    assert rewards.judged.tolist() == [False, True, True, False]
    np.testing.assert_allclose(rewards.values, [0, 0.25 + 0.5 * weight, 0.5 * weight, 0])
    assert message in rewards.verdicts[0].error
    assert (rewards.verdicts[0].score, rewards.verdicts[1:]) == (0.0, tuple(VERDICTS[1:]))


@pytest.mark.parametrize("of_group", [False, True])
def test_a_term_that_never_returns_is_the_error_of_its_samples(of_group, monkeypatch):
    def endless():
        while True:
            len([])

    term = (lambda group: endless()) if of_group else lambda _, episode: 0 if len(episode.tokens) > 3 else endless()  # noqa: ARG005
    monkeypatch.setattr(sys.modules["rlvr_jax.learner.rewards"], "TERMS", {**TERMS, "endless": term})
    rewards = reward((("endless", 1.0),), grouped(VERDICTS, EPISODES, 4), seconds=0.1)
    assert rewards.judged.tolist() == [False, not of_group, not of_group, False]
    assert "'endless' raised TimeoutError: it took longer than 0.1 s" in rewards.verdicts[0].error


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("mean(a, b, c)", [2.0, 1.0]),
        ("min(a,b,c)", [0.5, -1.0]),
        ("mean_minus_std(a, b, c)", [2 - 3.5**0.5 / 3**0.5, 1 - (14 / 3) ** 0.5]),
        ("mean_minus_std(a, b, c, coef=0.5)", [2 - 0.5 * (3.5 / 3) ** 0.5, 1 - 0.5 * (14 / 3) ** 0.5]),
        ("mean_minus_variance(a, b, c, coef=2)", [2 - 2 * 3.5 / 3, 1 - 2 * 14 / 3]),
    ],
)
def test_an_ensemble_combines_parts_of_a_verdict(term, expected):
    verdicts = [Verdict(1.0, {"a": 0.5, "b": 3.0, "c": 2.5}), Verdict(0.0, {"a": 4.0, "b": -1.0, "c": 0.0})]
    rewards = reward(((term, 2.0),), grouped(verdicts, EPISODES[:2], 2))
    np.testing.assert_allclose(rewards.values, 2 * np.array(expected), rtol=1e-6)
    assert list(rewards.terms) == [term]


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("min(format)", "at least two"),
        ("min(format, format)", "two different"),
        ("mean(format, stile)", "no stile; there are: score, format, style"),
        ("min(format, style, coef=1)", "coef"),
        ("mean_minus_std(format, style, coef=x)", "malformed"),
    ],
)
def test_a_wrong_ensemble_is_an_error(term, message):
    with pytest.raises(ConfigError, match=rf"config\.reward: '{re.escape(term)}'.*{message}"):
        reward(((term, 1.0),), grouped(VERDICTS, EPISODES, 4))


def test_an_unknown_term_is_an_error_that_lists_the_known_ones():
    message = r"config\.reward: there is no term 'fromat'; .*: score, .*, turns, format/.*, format, style"
    with pytest.raises(ConfigError, match=message):
        reward((("score", 1.0), ("fromat", 1.0)), grouped(VERDICTS, EPISODES, 4))


def test_a_term_named_twice_is_an_error():
    with pytest.raises(ConfigError, match=r"config\.reward names the term 'score' twice"):
        reward((("score", 1.0), ("score", 0.5)), grouped(VERDICTS, EPISODES, 4))


def test_groups_may_be_of_any_size():
    rewards = reward((("score", 1.0),), grouped(VERDICTS, EPISODES, 1, 3))
    assert rewards.group.tolist() == [0, 1, 1, 1]
    np.testing.assert_allclose(rewards.values, [1, 0.25, 0, 0])


def rank(group):
    """How many of the group are shorter."""
    lengths = [len(episode.tokens) for episode in group.episodes]
    return [sum(other < length for other in lengths) for length in lengths]


def too_few(_):
    return [0.0]


def test_a_term_of_one_argument_sees_the_whole_group():
    terms = (("score", 1.0), ("tests.learner.test_rewards:rank", -0.5))
    rewards = reward(terms, grouped(VERDICTS, EPISODES, 3, 1))
    np.testing.assert_allclose(rewards.terms[terms[1][0]], [0, -1, -0.5, 0])
    failed = reward((("tests.learner.test_rewards:too_few", 1.0),), grouped(VERDICTS, EPISODES, 3, 1))
    assert failed.judged.tolist() == [False, False, False, False]
    assert "1 numbers for 3 episodes" in failed.verdicts[0].error


def test_a_term_of_a_group_may_neither_leave_nor_give_numbers_without_end(monkeypatch):
    def leaves(_):
        sys.exit(0)

    endless = lambda _: itertools.repeat(1.0)  # noqa: E731
    monkeypatch.setattr(
        sys.modules["rlvr_jax.learner.rewards"], "TERMS", {**TERMS, "endless": endless, "leaves": leaves}
    )
    for term, message in (("endless", "more numbers than 2 episodes"), ("leaves", "raised SystemExit: 0")):
        rewards = reward(((term, 1.0),), grouped(VERDICTS, EPISODES, 2))
        assert not rewards.judged.any()
        assert message in rewards.verdicts[0].error


def test_a_check_of_form_is_a_term_with_its_arguments():
    texts = ["a b a b", "<think>a</think><answer>b</answer>", "a", "a b a b"]
    samples = [episode(3, text) for text in texts]
    names = ("format/think_answer", "format/repetition(n=2)", "format/length(unit='characters', high=3, slack=3)")
    rewards = reward(tuple((name, 2.0) for name in names), grouped(VERDICTS, samples, 4))
    np.testing.assert_allclose(rewards.terms[names[0]], [0, 2, 0, 0])
    np.testing.assert_allclose(rewards.terms[names[1]], [2 / 3, 0, 0, 0], rtol=1e-6)  # ab ba ab; the last not judged
    np.testing.assert_allclose(rewards.terms[names[2]], [0, 0, 2, 0])
    np.testing.assert_allclose(rewards.values, sum(rewards.terms.values()))


def test_the_same_check_with_other_arguments_is_another_term():
    terms = (("format/repetition(n=1)", 1.0), ("format/repetition(n=2)", 1.0))
    values = reward(terms, grouped(VERDICTS[:1], [episode(3, "a b a")], 1)).terms
    np.testing.assert_allclose([values[name][0] for name, _ in terms], [1 / 3, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("format/repetition(m=2)", "unexpected keyword argument 'm'.*its arguments are n: int = 3$"),
        ("format/repetition(n=0)", "needs n >= 1"),
        ("format/repetition(2)", "arguments are given by name"),
        ("format/repetition(**{})", "arguments are given by name"),
        ("format/repetition(n=print)", "malformed node"),
        ("format/repetition(n=", "there is no term"),
        ("format/repetition(n=))", "invalid syntax|unmatched"),
        ("format/repetition() + f()", "arguments are given by name"),
        ("format/length", "missing 1 required keyword-only argument: 'high'"),
        ("format/length(high='a')", "not supported between"),
        ("format/taste", "there is no term 'format/taste'"),
    ],
)
def test_wrong_arguments_of_a_check_are_an_error_that_shows_the_right_ones(name, message):
    with pytest.raises(ConfigError, match=message):
        term_of(name, ())


def test_a_part_of_the_verifier_comes_before_a_check_of_the_same_name():
    verdict = Verdict(1.0, {"format/script": 0.25})
    assert term_of("format/script", ["format/script"])(verdict, episode(1, "a")) == 0.25
    assert term_of("format/script", [])(verdict, episode(1, "a")) == 1.0


@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        ("Why?<think>", "hm</think> <answer>so</answer>", 1),
        ("Why?<think>\n", "hm</think> <answer>so</answer>", 1),
        ("Why?", "hm</think> <answer>so</answer>", 0),
        ("Why?", "<think>hm</think> <answer>so</answer>", 1),
        ("Why?<think>", "<think>hm</think> <answer>so</answer>", 0),
        ("Why?<think></think>", "<answer>so</answer>", 0),
    ],
)
def test_checks_of_form_read_the_thought_that_the_prompt_has_opened(prompt, text, expected):
    said = episode(3, text, example=Example("made-up/train/0", prompt, None, "made-up"))
    assert term_of("format/think_answer", ())(Verdict(1.0), said) == expected
