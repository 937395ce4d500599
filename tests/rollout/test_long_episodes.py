"""Episodes of several context windows, with forced text and calls of the policy itself; nothing is compiled."""

import dataclasses
import json
from concurrent.futures import Future

import jax
import numpy as np
import pytest

from rlvr_jax.envs import Ask, Done, Env, Force, NewWindow, Say, make_env
from rlvr_jax.learner.advantages import Signal
from rlvr_jax.learner.aggregation import AGGREGATIONS
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import in_groups, make_batch
from rlvr_jax.learner.samples import make_samples
from rlvr_jax.parallel import Processes
from rlvr_jax.rollout import kept
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.playing import Limits, Source
from rlvr_jax.rollout.policies import Policies
from rlvr_jax.tasks import Example, Task
from rlvr_jax.text.tokenizers import encode
from rlvr_jax.tools.tool import run
from rlvr_jax.training.record import sample_rows
from rlvr_jax.verifiers.jobs import Job
from tests.parallel.coordination import together
from tests.rollout.test_collector import EOS, TOKENIZER, Judge, Policy

LIMITS = Limits(prompt=40, response=40, sequences=8, stop_tokens=(EOS,))


def source_of(env):
    prompt = lambda problem: encode(TOKENIZER, problem)  # noqa: E731
    within = source_of(env.inner or make_env("single_turn")) if not env.one_sequence else None
    within = within and dataclasses.replace(within, policy=env.asked)
    return Source(Task("t", "v", None, None), env, lambda text, _: encode(TOKENIZER, text), (), prompt, within)


def collect(env, *said, limits=LIMITS, problem="say: ", processes=None, examples=1, pool=None, others=None, **changed):
    policy, pool = Policy(*said), pool or Judge()
    limits = dataclasses.replace(limits, **changed)
    sampler = Policies(policy, others) if others else policy
    collector = Collector(sampler, pool, {"t": source_of(env)}, TOKENIZER, limits, processes)
    problems = [Example(f"t/train/{i}", problem, None, "t") for i in range(examples)]
    collector.start("a", problems, 1 if examples > 1 else len(said), jax.random.key(1), 1.0)
    return collector.take("a"), policy, pool


def texts(sequence):
    return [
        (span.author, bytes(token - 2 for token in span.tokens if token > 1).decode("utf-8", "replace"))
        for span in sequence.spans
    ]


def windows(count):
    """Each turn but the last is the prompt of the next window."""

    def step(number, text):
        return number + 1, Done(answer=text) if number == count else NewWindow(f"{number}:{text} ")

    return Env(lambda example: (1, example.prompt), step, one_sequence=False)


def test_a_new_window_begins_with_its_prompt_alone_and_all_windows_are_kept():
    ((group,), policy, pool) = collect(windows(3), ["one", "two", "three"], ["a", "b", "c"])
    first = group.episodes[0]
    assert [texts(window) for window in first.sequences] == [
        [("prompt", "say: "), ("policy", "one")],
        [("prompt", "1:one "), ("policy", "two")],
        [("prompt", "2:two "), ("policy", "three")],
    ]
    assert (first.turns, first.length, first.finish_reason) == (("one", "two", "three"), 14, "stop")
    assert sorted(pool.judged) == ["c", "three"]
    own = [request for request in policy.requests if request.id == 1]
    assert [request.drawn for request in own] == [0, 4, 8]  # one random stream over all windows
    assert [request.budget for request in own] == [40, 40, 40]
    assert all(not len(request.new) for request in own)
    assert policy.released.count(1) == 3  # the caches of the windows before, and the last


@pytest.mark.parametrize(
    ("changed", "reason", "sequences"),
    [({"sequences": 2}, "sequences", 2), ({"turns": 2}, "turns", 2), ({"prompt": 5}, "prompt", 1)],
)
def test_limits_of_windows_end_an_episode_and_are_told_apart(changed, reason, sequences):
    (group,), _, pool = collect(windows(3), ["one", "two", "three"], **changed)
    (episode,) = group.episodes
    assert (episode.finish_reason, len(episode.sequences), episode.cut_off) == (reason, sequences, True)
    assert len(pool.judged) == 1


def test_windows_are_rows_that_share_an_episode_and_its_weight():
    (group,), _, _ = collect(windows(2), ["one", "two"], ["abc", "de"])
    kept_all = np.ones(2, bool)
    signal = Signal(make_samples(np.zeros(2), np.zeros(2, int)), kept_all, kept_all, 0.0)
    batch, of_row = make_batch([group], signal, 10, 10)
    assert of_row.tolist() == [0, 0, 1, 1]
    assert batch.samples.tolist() == [0.5] * 4
    padded = in_groups(batch, np.zeros(4, int), 1, 6)
    assert (padded.samples.sum(), padded.tokens.shape) == (2, (6, 20))
    assert batch.action_mask.sum(axis=1).tolist() == [4, 4, 4, 3]
    weights, divisor = AGGREGATIONS["sequence_mean"](AlgorithmConfig(), jax.tree.map(jax.numpy.asarray, batch), 0)
    of_episodes = (np.asarray(weights) * batch.action_mask).sum(axis=1).reshape(2, 2).sum(axis=1)
    np.testing.assert_allclose([*of_episodes, divisor], [1, 1, 2], rtol=1e-6)


def forced(say="</t>"):
    """A thought of three tokens at most, which is then closed."""

    def cut(state, text):
        return state + 1, Force("" if text.endswith("go") else say)

    budget = lambda state: 3 if state == 0 else 0  # noqa: E731
    step = lambda state, text: (state, Done(answer=text))  # noqa: E731
    return Env(lambda example: (0, example.prompt), step, budget=budget, cut=cut)


def test_forced_text_belongs_to_the_turn_and_is_not_trained_on():
    (group,), policy, pool = collect(forced(), ["thinking", "4"])
    (episode,) = group.episodes
    (window,) = episode.sequences
    assert texts(window) == [("prompt", "say: "), ("policy", "thi"), ("forced", "</t>"), ("policy", "4")]
    assert (episode.turns, pool.judged) == (("thi</t>4",), ["thi</t>4"])
    assert window.action_mask.tolist() == [True] * 3 + [False] * 4 + [True] * 2
    assert [request.budget for request in policy.requests] == [3, 33]
    assert policy.requests[1].new.tolist() == encode(TOKENIZER, "</t>")
    _, policy, _ = collect(forced(), ["thinking", "4"], turn=10)
    assert [request.budget for request in policy.requests] == [3, 3]  # 7 of the turn's 10 tokens are there


def test_a_turn_that_is_cut_may_just_go_on():
    (group,), policy, pool = collect(forced(), ["ego", "4"])
    assert (group.episodes[0].turns, pool.judged) == (("ego4",), ["ego4"])
    assert policy.requests[1].prompt.tolist() == encode(TOKENIZER, "say: ego")
    assert policy.requests[1].drawn == 3


@pytest.mark.parametrize("changed", [{"response": 7}, {"turn": 7}])
def test_a_turn_without_room_for_what_is_forced_ends(changed):
    (group,), _, _ = collect(forced(), ["thinking"], **changed)
    assert group.episodes[0].finish_reason == "length"


def asking(inner=None):
    """Each word of the first turn is asked for; the answers are an observation."""

    def step(state, text):
        if state:
            return state, Done()
        return True, Ask(tuple(f"{word}? " for word in text.split()))

    receive = lambda state, found: (state, Say(" ".join(x.value or f"({x.error})" for x in found) + "|"))  # noqa: E731
    return Env(lambda example: (False, example.prompt), step, receive, one_sequence=False, inner=inner)


def test_a_turn_may_ask_the_policy_itself_and_all_sequences_belong_to_the_episode():
    # The requests of a scripted policy count on from 1: the episode is the first, its questions the second and third.
    (group,), policy, pool = collect(asking(), ["A B", "done"])
    (episode,) = group.episodes
    asked = [request for request in policy.requests if request.id > 1]
    assert [bytes(token - 2 for token in request.prompt).decode() for request in asked] == ["A? ", "B? "]
    assert len({request.key.tobytes() for request in policy.requests}) == 3
    assert [window.depth for window in episode.sequences] == [1, 1, 0]
    assert texts(episode.sequences[0]) == [("prompt", "A? "), ("policy", "A B")]
    assert texts(episode.sequences[-1])[1:] == [("policy", "A B"), ("env", "A B A B|"), ("policy", "done")]
    assert (episode.turns, pool.judged) == (("A B", "done"), ["A B\ndone"])
    assert episode.length == 4 + 4 + 4 + 5
    assert {1, 2, 3} <= {*policy.released}
    (row,) = sample_rows(1, "train", [group], TOKENIZER)
    assert [(span["author"], span.get("depth", 0)) for span in row["spans"]] == [
        ("policy", 0), ("env", 0), ("policy", 0), ("prompt", 1), ("policy", 1), ("prompt", 1), ("policy", 1)
    ]  # fmt: skip
    assert row["completion"] == "A B\n[[A B A B|]]\ndone"


def test_another_policy_may_be_asked_whose_answers_are_not_trained_on():
    helper = Policy(["yes"])
    env = dataclasses.replace(asking(), asked="helper")
    (group,), own, _ = collect(env, ["A B", "done"], others={"helper": helper})
    (episode,) = group.episodes
    assert [len(x.requests) for x in (own, helper)] == [2, 2]
    assert {*helper.released} >= {2, 3}
    assert texts(episode.sequences[0]) == [("prompt", "A? "), ("other", "yes")]
    assert texts(episode.sequences[-1])[1:] == [("policy", "A B"), ("env", "yes yes|"), ("policy", "done")]
    assert (episode.length, [window.is_trained for window in episode.sequences]) == (9, [False, False, True])
    everything = np.ones(1, bool)
    signal = Signal(make_samples(np.zeros(1), np.zeros(1, int)), everything, everything, 0.0)
    batch, rows = make_batch([group], signal, 40, 40)
    assert (batch.tokens.shape[0], rows.tolist(), batch.samples.tolist()) == (1, [0], [1.0])


def test_a_question_that_a_limit_ends_is_answered_by_its_reason():
    inner = Env(lambda _: (0, ""), lambda *_: (0, Say("?")), budget=lambda _: 1)  # which cuts the answer off
    (group,), _, _ = collect(asking(inner), ["A", "done"])
    assert texts(group.episodes[0].sequences[-1])[2] == ("env", "(length)|")


def test_more_sequences_than_allowed_end_the_episode():
    (group,), policy, _ = collect(asking(), ["A B C", "done"], sequences=3)
    assert (group.episodes[0].finish_reason, len(policy.requests)) == ("sequences", 1)


def test_questions_may_ask_questions_as_deep_as_their_environment_says():
    inner = asking(Env(lambda _: (0, ""), lambda *_: 1 / 0))  # whose own questions raise
    (group,), _, _ = collect(asking(inner), ["A", "done"], response=400)
    (episode,) = group.episodes
    assert [window.depth for window in episode.sequences] == [2, 1, 0]
    assert "division by zero" in texts(episode.sequences[1])[2][1]
    assert episode.error is None


@pytest.mark.parametrize("action", [NewWindow("a"), Ask(("a",)), Ask(()), Force(None)])
def test_actions_that_an_environment_does_not_declare_end_the_episode_unjudged(action):
    env = Env(lambda example: (0, example.prompt), lambda *_: (0, action))
    (group,), _, _ = collect(env, ["x"])
    assert group.episodes[0].finish_reason == "env_error"


def test_long_episodes_are_kept_to_the_bit_and_the_same_in_several_processes():
    def collected(processes):
        return collect(asking(), ["A B", "done"], processes=processes, examples=3)[0]

    alone = collected(Processes())
    data = json.loads(json.dumps(kept.to_json(alone)))
    again = kept.from_json(data, [group.example for group in alone])
    np.testing.assert_equal(list(map(dataclasses.asdict, again)), list(map(dataclasses.asdict, alone)))
    for found in together(2, collected):
        np.testing.assert_equal([dataclasses.asdict(x.episodes[0]) for x in found],
                                [dataclasses.asdict(x.episodes[0]) for x in alone])  # fmt: skip


def talk(count):
    """An environment that answers `count` turns by a long text."""
    step = lambda n, text: (n + 1, Done() if n == count else Say(f"{n}{text * 5} "))  # noqa: E731
    return Env(lambda example: (1, example.prompt), step)


def test_a_full_window_is_summed_up_and_the_next_one_goes_on_with_problem_summary_and_observation():
    ask, prompt = "Sum up:", "{problem}[{summary}]{observation}"
    env = make_env("compaction", {
        "environment": "tests.rollout.test_long_episodes:talk", "environment_options": {"count": 4},
        "summary_tokens": 6, "reserve": 14, "ask": ask, "prompt": prompt,
    })  # fmt: skip
    (group,), _, pool = collect(env, ["ab", "cd", "sum", "ef", "  ", "gh"])
    (episode,) = group.episodes
    assert [texts(window) for window in episode.sequences] == [
        [("prompt", "say: "), ("policy", "ab"), ("env", "1ababababab "), ("policy", "cd"), ("env", ask),
         ("policy", "sum")],
        [("prompt", "say: [sum]2cdcdcdcdcd "), ("policy", "ef"), ("env", "3efefefefef "), ("policy", "  ")],
    ]  # fmt: skip
    assert pool.judged == ["ab\ncd\nef\n  "]


def test_summaries_that_are_empty_or_too_long_are_counted_and_cost_nothing_else():
    options = {
        "environment": "tests.rollout.test_long_episodes:talk", "environment_options": {"count": 3},
        "summary_tokens": 4, "reserve": 12, "ask": "Sum up:", "prompt": "{problem}[{summary}]{observation}",
    }  # fmt: skip
    (group,), _, pool = collect(make_env("compaction", options), ["abc", "", "def", "longer", "ghi"], response=25)
    (episode,) = group.episodes
    assert [texts(window)[0][1] for window in episode.sequences] == [
        "say: ", "say: []1abcabcabcabcabc ", "say: [long]2defdefdefdefdef "
    ]  # fmt: skip
    assert group.verdicts[0].parts == {"format": 1.0, "windows": 3, "empty_summaries": 1, "cut_summaries": 1}
    assert (pool.judged, episode.finish_reason) == (["abc\ndef\nghi"], "stop")
    cut = make_env("compaction", options | {"summaries": False})
    (group,), _, pool = collect(cut, ["abc", "def", "ghi"], response=25)
    assert [texts(window)[0][1] for window in group.episodes[0].sequences][1] == "say: []1abcabcabcabcabc "
    assert pool.judged == ["abc\ndef\nghi"]


def test_a_turn_that_fills_the_window_is_followed_by_a_summary():
    options = {"summary_tokens": 4, "reserve": 12, "ask": "Sum up:"}
    (group,), policy, pool = collect(make_env("compaction", options), ["a" * 30, "sum", "4"], response=25, problem="? ")
    (episode,) = group.episodes
    assert [request.budget for request in policy.requests][:2] == [13, 4]
    assert texts(episode.sequences[0])[1:] == [("policy", "a" * 13), ("env", "Sum up:"), ("policy", "sum")]
    assert episode.finish_reason == "prompt"  # the usual words around a summary are longer than 40 tokens
    assert pool.judged == [""]
    (group,), _, pool = collect(
        make_env("compaction", options | {"prompt": "{problem}{summary}"}), ["a" * 30, "sum", "4"], response=25
    )
    assert pool.judged == ["4"]


def test_the_next_window_has_no_thought_of_a_summary():
    env = make_env("compaction", {"prompt": "{summary}|{observation}|{problem}"})
    for said, summary in (("<think>hm</think> sum", "sum"), ("<think>hm", "")):
        state, _ = env.full(env.start(Example("t/train/0", "p", "", "t"))[0], Say("x"))
        state, action = env.step(state, said)
        assert (action.prompt, env.parts_of(state)["empty_summaries"]) == (f"{summary}|x|p", summary == "")


def test_each_turn_that_begins_within_a_thought_is_seen_and_judged_with_its_tag():
    opened = {"problem": "say <think>\n", "response": 25}
    options = {"summary_tokens": 6, "reserve": 12, "ask": "Sum up:", "prompt": "{summary}{problem}"}
    env = make_env("compaction", options)
    _, _, pool = collect(env, ["a" * 30, "sum", "42"], ["a" * 30, "sum", "so</think>42"], ["so</think>42"], **opened)
    assert sorted(pool.judged) == ["<think>42", "<think>so</think>42", "<think>so</think>42"]
    says, seen = (Say("go|"), Say("<think> "), Done()), []
    talking = Env(lambda e: (0, e.prompt), lambda n, text: (n + 1, seen.append(text) or says[n]))
    _, _, pool = collect(talking, ["</think>a", "b", "c"], **opened)
    assert seen == [
        "<think>\n</think>a",
        "b",
        "<think> c",
    ]  # with its white space: the first line may be that of a call
    assert pool.judged == ["<think></think>a\nb\n<think>c"]
    inner = Env(lambda _: (0, ""), lambda *_: (0, Done()))
    step = lambda n, _: (1, Done() if n else Ask(("? <think>",)))  # noqa: E731
    receive = lambda n, found: (n, Say(f"{found[0].value}{found[0].error}|"))  # noqa: E731
    within = Env(lambda e: (0, e.prompt), step, receive, one_sequence=False, inner=inner)
    for said, told in (("so</think>4", "4None|"), ("so", "Nonethe thought has no end|")):
        (group,), _, _ = collect(within, [said, "done"], response=200)
        assert texts(group.episodes[0].sequences[-1])[2] == ("env", told)


class Running(Judge):
    """A pool that runs tools."""

    def submit(self, jobs):
        futures = [super(Running, self).submit([job])[0] if isinstance(job, Job) else Future() for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            if not isinstance(job, Job):
                future.set_result(run(**job.kwargs))
        return futures


def test_an_output_of_a_tool_that_has_no_room_goes_on_in_the_next_window_and_calls_keep_their_turns():
    format = {"marks": {"calculator": ["<", ">"]}, "observation": "{}|"}
    tools = {"tools": ["calculator"], "format": "tags", "format_options": format}
    env = make_env("compaction", {
        "environment": "tools", "environment_options": tools,
        "summary_tokens": 6, "reserve": 14, "ask": "Sum up:", "prompt": "{problem}[{summary}]{observation}",
    })  # fmt: skip
    said = ["<12*7>", "and 1 <84+1>", "so 85", "<85+0>", "it is 85"]
    (group,), _, pool = collect(env, said, pool=Running())
    (episode,) = group.episodes
    assert [texts(window) for window in episode.sequences] == [
        [("prompt", "say: "), ("policy", "<12*7>"), ("env", "84|"), ("policy", "and 1 <84+1>"), ("env", "Sum up:"),
         ("policy", "so 85")],
        [("prompt", "say: [so 85]85|"), ("policy", "<85+0>"), ("env", "85|"), ("policy", "it is 85")],
    ]  # fmt: skip
    assert [(call.turn, call.outcome) for call in episode.calls] == [(0, "ok"), (1, "ok"), (3, "ok")]
    assert pool.judged == ["<12*7>\nand 1 <84+1>\n<85+0>\nit is 85"]
    assert (group.verdicts[0].parts["tool_calls"], group.verdicts[0].parts["windows"]) == (3, 2)
