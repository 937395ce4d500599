"""Plans, thoughts and answers: where each begins and ends, their tokens, budgets and closings."""

import numpy as np
import pytest

from rlvr_jax.envs import make_env
from rlvr_jax.envs.plans import KINDS, MARKS, kinds_of, without_plans
from rlvr_jax.learner.advantages import Signal
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import in_groups, make_batch
from rlvr_jax.learner.credit import with_advantages
from rlvr_jax.learner.samples import make_samples
from rlvr_jax.tasks import Example
from tests.rollout.test_long_episodes import collect, texts


@pytest.mark.parametrize(
    ("text", "opened", "kinds", "rest"),
    [
        ("4", "", [("answer", -1)], "4"),
        ("<plan>a</plan>4", "", [("plan", 14), ("answer", -1)], "4"),
        ("<plan>a", "", [("plan", -1)], ""),
        ("so <plan>a</plan><think>b</think>4", "", [("answer", 3), ("plan", 17), ("thinking", 33), ("answer", -1)],
         "so <think>b</think>4"),
        ("a</think>4", "thinking", [("thinking", 9), ("answer", -1)], "a</think>4"),
        ("<think>a<plan>b</think>4", "", [("thinking", 23), ("answer", -1)], "<think>a<plan>b</think>4"),
        ("a</plan>4<plan>b</plan>", "plan", [("plan", 8), ("answer", 9), ("plan", 23), ("answer", -1)], "4"),
    ],
)  # fmt: skip
def test_the_parts_of_a_turn(text, opened, kinds, rest):
    assert kinds_of(text, MARKS, opened) == kinds
    assert without_plans(text, MARKS, opened) == rest


def test_tokens_are_counted_as_they_come_as_in_the_whole_turn():
    """A count of each token by the parts of all the text, whatever tokens the marks are split into."""
    draws = np.random.default_rng(0)
    words = ["<plan>", "</plan>", "<think>", "</think>", "<", "pl", "an>", "/", "thi", "nk>", "x", "", "<pl", "</"]
    for opened in ("", "plan", "thinking"):
        env = make_env("plans", {"plan": 5, "thinking": 900, "opened": opened})
        for _ in range(40):
            (state, _), said = env.start(Example("t/train/0", "", "", "t")), []
            for _ in range(15):
                texts = list(draws.choice(words, size=draws.integers(0, 5)))
                state, said = env.read(state, texts), [*said, *texts]
                ends, counts, at = kinds_of("".join(said), MARKS, opened), dict.fromkeys(KINDS, 0), 0
                for text in said:
                    counts[next(kind for kind, end in ends if at < end or end < 0)] += 1
                    at += len(text)
                assert [env.parts_of(state)[f"{kind}_tokens"] for kind in KINDS] == list(counts.values())
                left = [
                    max(1, most - counts[kind])
                    for kind, most in (("plan", 5), ("thinking", 900))
                    if kind == ends[-1][0] or MARKS[kind][1] not in "".join(said)
                ]
                assert env.budget(state) == min(left, default=0)


def test_marks_and_tokens_take_linear_time():
    kinds = kinds_of("<think></think>" * 30_000)  # of which no plan is one
    assert (len(kinds), kinds[-1]) == (30_001, ("answer", -1))
    env = make_env("plans", {"plan": 10, "thinking": 10**6})
    state, _ = env.start(Example("t/train/0", "", "", "t"))
    for _ in range(5000):
        state = env.read(state, ("x",))
    assert (env.parts_of(state)["answer_tokens"], len(state.tail), len(state.pending)) == (5000, 7, 7)


SHORT = {"marks": {"plan": ["[", "]"], "thinking": ["(", ")"]}}


def played(*said, options=None, **limits):
    (group,), policy, pool = collect(make_env("plans", SHORT | (options or {})), list(said), **limits)
    parts = {name: value for name, value in group.verdicts[0].parts.items() if value and name != "format"}
    return group.episodes[0], parts, policy, pool.judged


def test_tokens_are_counted_by_kind_and_plans_are_not_judged():
    _, parts, policy, judged = played("[ab](c)def", options={"plan": 3, "force": False})
    counts = {"plan_tokens": 4, "thinking_tokens": 3, "answer_tokens": 3, "planned": 1, "plan_over": 1}
    assert (parts, judged) == (counts, ["(c)def"])
    assert [request.keep for request in policy.requests] == [False]  # still an episode of one turn
    _, parts, _, judged = played("def")
    assert (parts, judged) == ({"answer_tokens": 3}, ["def"])


def test_a_plan_that_has_used_up_its_budget_is_closed():
    # No request asks for more tokens than any part may have, since a part may begin and end within it.
    episode, parts, policy, judged = played("[abcdef", "(xyzw", "45", options={"plan": 4, "thinking": 3})
    assert [request.budget for request in policy.requests] == [3, 1, 3]
    assert texts(episode.sequences[0])[1:] == [("policy", "[ab"), ("policy", "("), ("forced", "]"), ("policy", "45")]
    assert parts == {"plan_tokens": 4, "answer_tokens": 2, "planned": 1, "forced": 1}
    assert judged == ["45"]


def test_a_thought_that_the_prompt_has_opened_is_closed_and_the_answer_is_cut_off():
    options = {"thinking": 3, "answer": 2, "opened": "thinking"}
    episode, parts, policy, judged = played("abc", "de", "123", options=options)
    assert [request.budget for request in policy.requests] == [2, 1, 2]
    assert texts(episode.sequences[0])[1:] == [("policy", "ab"), ("policy", "d"), ("forced", ")"), ("policy", "12")]
    assert parts == {"thinking_tokens": 3, "answer_tokens": 2, "forced": 1}
    assert (episode.finish_reason, judged) == ("length", ["abd)12"])


def test_an_answer_beyond_its_budget_is_cut_off():
    episode, parts, _, judged = played("12345", options={"answer": 2})
    assert (episode.turns, episode.finish_reason, judged, parts) == (("12",), "length", ["12"], {"answer_tokens": 2})


@pytest.mark.parametrize("options", [{}, {"answer": 4}, {"plan": 9}])
def test_no_plan_of_an_episode_that_is_cut_off_is_judged(options):
    episode, _, _, judged = played("[12]345678", "345678", options=options, response=8)
    assert (episode.finish_reason, judged) == ("length", ["3456"])


def test_no_call_in_a_plan_is_executed():
    tools = {"tools": {"calculator": {}}, "format": "tags", "format_options": {"marks": {"calculator": ["<", ">"]}}}
    env = make_env("plans", SHORT | {"environment": "tools", "environment_options": tools})
    (group,), _, pool = collect(env, ["[<1+1>]4"])
    assert (pool.called, pool.judged, group.verdicts[0].parts["tool_calls"]) == ([], ["4"], 0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("plans", {"plan": -1}, "-1"),
        ("plans", {"opened": "answer"}, "opened"),
        ("plans", {"marks": {"plan": ["<", ""]}}, "marks"),
        ("plans", {"marks": {"plan": ["|", "|"]}}, "marks: plan .*'\\|'"),
        ("plans", {"marks": {"plan": ["#", "1"], "thinking": ["#", "2"]}}, "marks: .*'#'"),
        ("plans", {"marks": {"thinking": ["<plan", ">"]}}, "marks: .*'<plan' of thinking"),
        ("plans", {"environment": "nothing"}, "no environment 'nothing'"),
        ("plans", {"environment": "tools"}, "tools"),
        ("compaction", {"summary_tokens": 0}, "summary_tokens"),
        ("compaction", {"prompt": "{problem}"}, "{summary}"),
        ("compaction", {"ask": ""}, "ask"),
        ("compaction", {"environment": "plans", "environment_options": {"plan": 3}}, "put `plans` around"),
        ("subcalls", {"most": 0}, "most"),
        ("subcalls", {"marks": ["<ask>"]}, "marks"),
        ("subcalls", {"marks": ["|", "|"]}, "marks"),
        ("subcalls", {"depth": 10000}, "subcalls': depth must be at most 20, not 10000$"),
        ("subcalls", {"observation": "x"}, "observation"),
        ("stream", {"environment": "single_turn"}, "no option 'environment'"),
    ],
)
def test_options_that_can_not_be_used_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_env(name, options)


def test_questions_of_a_turn_are_played_in_parallel_and_counted():
    env = make_env("subcalls", {"most": 2, "prompt": "Q: {}\n"})
    (group,), _, _ = collect(env, ["<ask>a</ask> <ask>b</ask>", "4"], response=200)
    (episode,) = group.episodes
    assert [texts(window)[0][1] for window in episode.sequences] == ["Q: a\n", "Q: b\n", "say: "]
    assert texts(episode.sequences[-1])[2:] == [
        ("env", 2 * "<ask>a</ask> <ask>b</ask>\n"), ("policy", "4"),
    ]  # fmt: skip
    parts = group.verdicts[0].parts
    assert (parts["asks"], parts["failed_asks"], parts["refused_asks"]) == (2, 0, 0)
    (group,), _, _ = collect(env, ["<ask>a</ask><ask>b</ask><ask></ask>", "<ask> </ask>", "4"], response=400)
    told = [text for author, text in texts(group.episodes[0].sequences[0]) if author == "env"]
    assert ["3 questions" in told[0], "empty" in told[1]] == [True, True]
    assert group.verdicts[0].parts["refused_asks"] == 4


def test_no_question_in_a_thought_is_asked():
    said = ["<think><ask>a</ask></think><ask>b</ask>", "<think><ask>c</ask>"]
    (group,), _, _ = collect(make_env("subcalls"), said, response=200)
    assert [texts(window)[0][1] for window in group.episodes[0].sequences] == ["b", "say: "]
    assert group.verdicts[0].parts["asks"] == 1


def judge(question, answer, reference):
    return len(answer) if question == "a" else reference is not None


def test_answers_may_have_rewards_of_their_own_and_then_their_own_advantages():
    env = make_env("subcalls", {"credit": "tests.envs.test_plans:judge"})
    (group,), _, _ = collect(env, ["<ask>a</ask><ask>b</ask>", "4"], ["5", "4"], response=200)
    first, second = group.episodes
    assert [window.reward for window in first.sequences] == [24.0, 0.0, None]
    assert [window.reward for window in second.sequences] == [None]
    everything = np.ones(2, bool)
    samples = make_samples([1.0, 0.0], [0, 0])
    batch, episodes = make_batch([group], Signal(samples, everything, everything, 0.0), 20, 60)
    batch = in_groups(batch, np.zeros(4, int), 1, 6)
    episodes = in_groups(episodes, np.zeros(4, int), 1, 6)
    batch, _ = with_advantages(AlgorithmConfig(scale="none", baseline="group_mean"), batch, episodes, samples)
    of_rows = [row[mask > 0] for row, mask in zip(batch.columns["advantages"], batch.action_mask, strict=True)]
    expected = [12.0, -12.0, 0.5, -0.5]
    for found, advantage in zip(of_rows[:4], expected, strict=True):
        np.testing.assert_allclose(found, advantage, rtol=1e-6)
    assert batch.columns.keys() == {"behaviour", "advantages"}


def test_an_episode_that_answers_a_question_may_ask_as_deep_as_it_is_allowed():
    said = ["<ask>a</ask>", "4"]
    (group,), _, _ = collect(make_env("subcalls", {"depth": 2}), said, response=200)
    assert [window.depth for window in group.episodes[0].sequences] == [2, 1, 0]
