"""Episodes against environments, with a sampler and a pool of the test's own: nothing is compiled."""

import contextlib
import dataclasses
import json
from concurrent.futures import Future

import jax
import numpy as np
import pytest

from rlvr_jax.envs import Call, Done, Env, Say, ToolCall, make_env, single_turn
from rlvr_jax.errors import CheckpointError, ConfigError
from rlvr_jax.parallel import Processes
from rlvr_jax.rollout import kept
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.playing import Limits, Source
from rlvr_jax.rollout.requests import Turn
from rlvr_jax.tasks import Example, Task, modsum
from rlvr_jax.text.tokenizers import byte_tokenizer, encode
from rlvr_jax.verifiers.jobs import Job, ToolError
from rlvr_jax.verifiers.pool import Pool
from rlvr_jax.verifiers.verdict import Verdict
from tests.parallel.coordination import together

TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id
LIMITS = Limits(prompt=20, response=40, stop_tokens=(EOS,))


class Policy:
    """A sampler that says what it is told to, `said[sample][turn]`, one turn at a poll, cut off at the budget."""

    end, steps = EOS, 0

    def __init__(self, *said: list[str]):
        self.said, self.queue, self.requests, self.released, self.turns = said, [], [], [], {}

    def submit(self, requests):
        self.queue += requests
        self.requests += requests

    def ready(self):
        return True if self.queue else None

    def poll(self, _steps=None):
        if not self.queue:
            return []
        request = self.queue.pop(0)
        number = self.turns.setdefault(request.id, 0)
        self.turns[request.id] += 1
        ids = [*encode(TOKENIZER, self.said[(request.id - 1) % len(self.said)][number]), self.end]
        tokens = np.array(ids[: request.budget], np.int32)
        finish = "stop" if len(ids) <= request.budget else "length"
        return [Turn(request.id, tokens, -np.arange(len(tokens), dtype=np.float32), finish, 3)]

    def release(self, ids):
        self.released += ids


class AtOnce(Policy):
    """All turns that are in flight finish at one poll."""

    def poll(self, _steps=None):
        return [turn for _ in range(len(self.queue)) for turn in super(AtOnce, self).poll()]


class FullStop(Policy):
    """Ends its turns by a token that is a character, too."""

    end = encode(TOKENIZER, ".")[0]


class Judge:
    """A pool: a completion scores by its length; tools answer once they are asked for the result."""

    def __init__(self):
        self.judged, self.called = [], []

    def submit(self, jobs):
        futures = []
        for job in jobs:
            future = Future()
            if isinstance(job, Job):
                self.judged.append(job.completion)
                future.set_result(Verdict(min(1.0, len(job.completion) / 100), {"format": 1.0}))
            else:
                self.called.append(job)
                value = job.kwargs["x"]
                if value < 0:
                    future.set_exception(ToolError("negative"))
                else:
                    future.set_result(2 * value)
            futures.append(future)
        return futures


def example(number=0, prompt="say: "):
    return Example(f"t/train/{number}", prompt, None, "t")


def collect(env, said, limits=LIMITS, examples=None, group_size=None, observe=None, sampler=Policy):
    policy, pool = sampler(*said), Judge()
    source = Source(Task("t", "v", None, None), env, observe or (lambda text, _: encode(TOKENIZER, text)))
    collector = Collector(policy, pool, {"t": source}, TOKENIZER, limits)
    examples = examples or [example()]
    collector.start("a", examples, group_size or len(said), jax.random.key(1), 1.0)
    return collector.take("a"), policy, pool


def texts(episode):
    return [
        (span.author, bytes(token - 2 for token in span.tokens if token > 1).decode())
        for span in episode.sequences[0].spans
    ]


def test_a_single_turn_is_judged_by_its_text_without_the_stop_token():
    (group,), policy, pool = collect(single_turn(), [["one"], ["three"]])
    assert [episode.text for episode in group.episodes] == pool.judged == ["one", "three"]
    assert [verdict.score for verdict in group.verdicts] == [0.03, 0.05]
    first = group.episodes[0]
    assert (first.finish_reason, first.sample, group.episodes[1].sample) == ("stop", 0, 1)
    window = first.sequences[0]
    assert window.response.tolist() == [*encode(TOKENIZER, "one"), EOS]
    assert window.prompt.tolist() == encode(TOKENIZER, "say: ")
    assert window.action_mask.all()
    assert window.logprobs.tolist() == [0, -1, -2, -3]
    assert [span.version for span in window.spans[1:]] == [3]
    assert policy.released == [1, 2]
    assert policy.requests[0].prompt is policy.requests[1].prompt  # so that it is computed once


def test_a_stop_token_that_is_text_is_no_part_of_the_answer_but_is_trained_on():
    (group,), _, pool = collect(single_turn(), [["1.5"]], sampler=FullStop)
    assert (group.episodes[0].text, pool.judged) == ("1.5", ["1.5"])
    assert group.episodes[0].tokens.tolist() == encode(TOKENIZER, "1.5.")


def test_episodes_that_end_at_once_get_their_own_verdicts_and_results_of_tools():
    (group,), _, _ = collect(single_turn(), [["one"], ["three"], ["fifteen"]], sampler=AtOnce)
    assert [verdict.score for verdict in group.verdicts] == [0.03, 0.05, 0.07]
    (group,), _, _ = collect(calculator(), [["21", "end"], ["4", "end"]], sampler=AtOnce)
    assert [texts(episode)[2] for episode in group.episodes] == [("env", "= 42 "), ("env", "= 8 ")]


def test_random_streams_are_named_by_the_sample():
    _, policy, _ = collect(single_turn(), [["a"], ["b"]], examples=[example(0), example(1)], group_size=2)
    key = jax.random.key(1)
    expected = [jax.random.key_data(jax.random.fold_in(key, i)) for i in range(4)]
    np.testing.assert_array_equal([request.key for request in policy.requests], expected)


def higher_or_lower(secret=7, tries=3):
    """A number is guessed."""

    def step(state, text):
        guess = int(text)
        if guess == secret:
            return state, Done({"tries": state + 1.0})
        if state + 1 == tries:
            return state, Done({"tries": float(tries)}, reason="turns")
        return state + 1, Say("higher " if guess < secret else "lower ")

    return Env(lambda _: (0, "guess: "), step, parts=("tries",))


def test_an_environment_starts_from_the_problem_and_the_policy_from_the_rendered_prompt():
    step = lambda state, _: (state, Done({"length": float(len(state))}))  # noqa: E731
    env = Env(lambda example: (example.prompt, ""), step, parts=("length",))
    made = dataclasses.replace(example(prompt="User: 1+1 Bot: "), problem="1+1")
    (group,), policy, _ = collect(env, [["2"]], examples=[made])
    assert group.verdicts[0].parts["length"] == 3
    assert policy.requests[0].prompt.tolist() == encode(TOKENIZER, made.prompt)


def test_an_observation_follows_the_last_token_of_the_turn():
    told = []
    observe = lambda text, last: (told.append((text, last)), encode(TOKENIZER, text))[1]  # noqa: E731
    collect(higher_or_lower(), [["5", "7"]], observe=observe, sampler=FullStop)
    assert told == [("higher ", FullStop.end)]


def test_an_environment_answers_until_it_is_done():
    (group,), policy, pool = collect(higher_or_lower(), [["5", "9", "7"], ["7"], ["1", "2", "3"]])
    right, at_once, wrong = group.episodes
    assert texts(right) == [
        ("prompt", "say: "), ("policy", "5"), ("env", "higher "), ("policy", "9"), ("env", "lower "), ("policy", "7"),
    ]  # fmt: skip
    assert right.turns == ("5", "9", "7")
    assert sorted(pool.judged) == ["1\n2\n3", "5\n9\n7", "7"]
    assert [verdict.parts for verdict in group.verdicts] == [{"format": 1.0, "tries": t} for t in (3.0, 1.0, 3.0)]
    assert [episode.finish_reason for episode in group.episodes] == ["stop", "stop", "turns"]
    window = right.sequences[0]
    mask = window.action_mask
    assert mask.tolist() == [True] * 2 + [False] * 7 + [True] * 2 + [False] * 6 + [True] * 2
    assert (window.logprobs[~mask] == 0).all()
    assert right.tokens.tolist() == window.response[mask].tolist()
    assert [request.budget for request in policy.requests if request.id == 1] == [40, 31, 23]
    assert len(at_once.turns), len(wrong.turns) == (1, 3)


@pytest.mark.parametrize(
    ("limits", "reason", "turns"),
    [
        ({"turns": 2}, "turns", 2),
        ({"response": 10}, "length", 2),
        ({"response": 12}, "window", 2),
        ({"response": 9}, "window", 1),  # no token is left for a second turn
        ({"turn": 1}, "length", 1),
        ({"response": 1}, "length", 1),
    ],
)
def test_limits_end_an_episode_and_are_told_apart(limits, reason, turns):
    limits = dataclasses.replace(LIMITS, **limits)
    (group,), _, pool = collect(higher_or_lower(tries=9), [["5", "9", "7"]], limits)
    (episode,) = group.episodes
    assert (episode.finish_reason, len(episode.turns), episode.cut_off) == (reason, turns, True)
    assert len(episode.sequences[0].response) <= limits.response
    assert len(pool.judged) == 1


def calculator():
    def step(_, text):
        return None, Call((ToolCall("mine:double", kwargs={"x": int(text)}),)) if text != "end" else Done()

    def receive(_, results):
        return None, Say(f"= {results[0].value if results[0].error is None else results[0].error} ")

    return Env(lambda _: (None, ""), step, receive)


def test_tools_run_in_the_pool_and_what_they_say_is_no_answer():
    (group,), _, pool = collect(calculator(), [["21", "end"], ["-1", "end"]])
    assert [call.kwargs["x"] for call in pool.called] == [21, -1]
    assert texts(group.episodes[0])[2] == ("env", "= 42 ")
    assert texts(group.episodes[1])[2] == ("env", "= negative ")
    assert sorted(pool.judged) == ["-1\nend", "21\nend"]


def failing(where):
    def start(_):
        if where == "start":
            raise RuntimeError("no start")
        return None, ""

    def step(_, text):
        if text != "bad":
            return None, Done()
        if where == "step":
            raise RuntimeError("no step")
        answers = {"type": "more", "call": Call((ToolCall("mine:f"),)), "parts": Done({"luck": 1.0})}
        return None if where == "pair" else (None, answers[where])

    return Env(start, step)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        *[("start", "no start"), ("step", "no step"), ("type", "'more'")],
        *[("call", "Call"), ("pair", "returned None"), ("parts", "luck")],
    ],
)
def test_an_environment_that_fails_ends_its_episode_alone_which_is_not_judged(where, told):
    (group,), policy, pool = collect(failing(where), [["bad"], ["good"]])
    bad, good = group.verdicts
    assert told in bad.error
    assert group.episodes[0].finish_reason == "env_error"
    assert where == "start" or (good.error, pool.judged) == (None, ["good"])
    assert policy.released == [1, 2]


class UnspeakableError(Exception):
    def __str__(self):
        raise ZeroDivisionError


def raising(error):
    def function(*_):
        raise error

    return function


def calling(receive=None):
    return Env(lambda _: (None, ""), lambda *_: (None, Call((ToolCall("mine:f", kwargs={"x": 1}),))), receive)


def saying(action, **fields):
    return Env(lambda _: (None, ""), lambda state, text: (state, action if text == "bad" else Done()), **fields)


@pytest.mark.parametrize(
    ("env", "told"),
    [
        (saying(Say("")), "no tokens"),
        (saying(Say(None)), "None"),
        (saying(Say("\ud800")), "surrogate"),
        (saying(Say(({"role": "user"},))), "message 1"),
        (saying(Say("more"), one_turn=True), r"one_turn"),
        (saying(Done), "not Say, Call or Done"),
        (saying(Done(None)), "parts None"),
        (saying(Done(reason="won")), "'won'"),
        (saying(Done({"x": float("nan")}), parts=("x",)), "'x' = nan"),
        (saying(Call(()), receive=lambda *_: None), "at least one"),
        (saying(Call((5,)), receive=lambda *_: None), "5, which is no ToolCall"),
        (Env(lambda _: (None, ""), raising(SystemExit(3))), "SystemExit: 3"),
        (Env(lambda _: (None, ""), raising(UnspeakableError())), "UnspeakableError"),
        (Env(lambda _: None, raising(SystemExit(3))), "start returned None"),
        (Env(raising(SystemExit(3)), raising(SystemExit(3))), "start raised SystemExit: 3"),
        (Env(lambda _: (None, 5), raising(SystemExit(3))), "its prompt takes text or messages, not 5"),
        (calling(lambda state, _: calling().step(state, "")), "called tools 100 times without a turn"),
        (calling(lambda _: None), "TypeError"),
        (calling(lambda *_: (None, None)), "None, not Say, Call or Done"),
    ],
)
def test_whatever_an_environment_returns_its_episode_ends_with_the_reason(env, told):
    (group,), policy, _ = collect(env, [["bad"]])
    assert group.episodes[0].finish_reason == "env_error"
    assert told in group.verdicts[0].error
    assert policy.released == [1]


def endless(*_):
    while True:
        with contextlib.suppress(Exception):
            len([])


@pytest.mark.parametrize("env", [Env(endless, endless), Env(lambda _: (None, ""), endless), calling(endless)])
def test_an_environment_that_never_returns_ends_its_episode(env):
    (group,), policy, _ = collect(env, [["bad"]], dataclasses.replace(LIMITS, seconds=0.1))
    assert group.episodes[0].finish_reason == "env_error"
    assert "longer than 0.1 s" in group.verdicts[0].error
    assert policy.released == [1]


def test_an_environment_that_changes_its_data_changes_them_for_no_other_episode():
    def start(example):
        return example.reference, example.prompt

    def step(state, _):
        return state, Done({"left": float(len(state) if state.pop() else -1)})

    shared = dataclasses.replace(example(), reference=["a", "b"])
    (group,), _, _ = collect(Env(start, step, parts=("left",)), [["x"], ["y"]], examples=[shared])
    assert [episode.parts["left"] for episode in group.episodes] == [1.0, 1.0]
    assert shared.reference == ["a", "b"]


def test_prompts_that_do_not_fit_are_refused_by_name():
    for prompt in ("", "x" * 21):
        with pytest.raises(ConfigError, match=r"t/train/4.*max_prompt_length = 20"):
            collect(single_turn(), [["a"]], examples=[example(4, prompt)])


def test_batches_are_taken_by_name_whatever_the_order():
    policy, pool = Policy(["one"], ["two"]), Judge()
    source = Source(Task("t", "v", None, None), single_turn(), lambda *_: [])
    collector = Collector(policy, pool, {"t": source}, TOKENIZER, LIMITS)
    for name in (1, 2):
        collector.start(name, [example(name)], 1, jax.random.key(name), 1.0)
    assert collector.started() == [1, 2]
    assert collector.take(2)[0].episodes[0].text == "two"
    collector.play()
    assert collector.take(1)[0].episodes[0].text == "one"
    assert collector.started() == []


def test_groups_in_flight_are_kept_to_the_bit():
    policy, pool = Policy(["5", "7"], ["x"]), Judge()
    source = Source(Task("t", "v", None, None), higher_or_lower(), lambda text, _: encode(TOKENIZER, text))
    collector = Collector(policy, pool, {"t": source}, TOKENIZER, LIMITS)
    collector.start(1, [example()], 2, jax.random.key(0), 1.0)
    ((name, groups),) = collector.finished().items()
    data = json.loads(json.dumps(kept.to_json(groups)))
    again = kept.from_json(data, [example()])
    assert (name, collector.started()) == (1, [1])
    for before, after in zip(collector.take(1)[0].episodes, again[0].episodes, strict=True):
        np.testing.assert_equal(dataclasses.asdict(after), dataclasses.asdict(before))
    assert again[0].verdicts == groups[0].verdicts
    with pytest.raises(CheckpointError, match="t/train/9"):
        kept.from_json(data, [example(9)])
    other = Collector(Policy(["y"]), pool, {"t": source}, TOKENIZER, LIMITS)
    other.put_back(1, again)
    assert other.take(1) == again


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("double_turn", {}, "no environment 'double_turn'; there are single_turn"),
        ("single_turn", {"turns": 2}, "turns"),
        ("tests.rollout.test_collector:example", {}, r"test_collector.py, line \d+: .*returned Example"),
        ("tests.rollout.test_collector:nothing", {}, "has no 'nothing'"),
    ],
)
def test_an_environment_that_can_not_be_made_is_an_error(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_env(name, options)


def test_an_environment_by_name_gets_its_options():
    env = make_env("tests.rollout.test_collector:higher_or_lower", {"secret": 3})
    assert env.step(0, "3")[1] == Done({"tries": 1.0})


def test_a_thought_that_the_prompt_has_opened_is_no_answer_until_it_is_closed():
    texts = ["#1", "#2</think>#1", "<think>#2</think>#1", "#1</think>"]
    examples = [Example("t/train/0", prompt, "1", "t") for prompt in ("?", "?<think>\n")]
    source = Source(dataclasses.replace(modsum(digits=4), name="t"), single_turn(), lambda *_: [])
    with Pool(0) as pool:
        collector = Collector(Policy(*[[text] for text in texts]), pool, {"t": source}, TOKENIZER, LIMITS)
        collector.start(0, examples, 4, jax.random.key(0), 1.0)
        groups = collector.take(0)
    assert [[verdict.score for verdict in group.verdicts] for group in groups] == [[1, 1, 1, 0], [0, 1, 1, 0]]


class Hanging(Judge):
    """Its verifier may hang: the pool's verdict then has an error."""

    def __init__(self, hangs):
        super().__init__()
        self.hangs = hangs

    def submit(self, jobs):
        if not self.hangs:
            return super().submit(jobs)
        verdict = Verdict(0.0, error="timed out")
        return [future_of(verdict) if isinstance(job, Job) else super(Hanging, self).submit([job])[0] for job in jobs]


def future_of(value):
    future = Future()
    future.set_result(value)
    return future


def test_several_processes_play_as_one_and_each_runs_environments_tools_and_verifiers_of_its_groups():
    said = [["2", "a", "b"], ["-1", "c"], ["what"], ["end"]]

    def collected(processes):
        started = []

        def start(example):
            started.append(example.id)
            return 0, example.prompt

        def step(state, text):
            if text in ("2", "-1"):
                return state + 1, Call((ToolCall("math:sqrt", kwargs={"x": int(text)}),))
            if text == "what":
                raise RuntimeError("what is this")
            return (state, Done({"n": float(state)})) if text in ("end", "b") else (state + 1, Say(f"again{state} "))

        def receive(state, results):
            return state, Say(f"got {results[0].value or results[0].error} ")

        env = Env(start, step, receive, parts=("n",))
        policy, pool = Policy(*said), Hanging(hangs=processes.index == 1)
        source = Source(Task("t", "v", None, None), env, lambda text, _: encode(TOKENIZER, text))
        limits = dataclasses.replace(LIMITS, turns=2)
        collector = Collector(policy, pool, {"t": source}, TOKENIZER, limits, processes)
        collector.start("a", [example(i) for i in range(3)], 4, jax.random.key(1), 1.0)
        groups = collector.take("a")
        return groups, {*started}, len(pool.judged), len(pool.called)

    (alone, _, judged, called) = collected(Processes())
    assert (judged, called) == (9, 6)
    found = together(2, collected)
    for groups, _, _, _ in found:
        assert [[texts(x) for x in group.episodes] for group in groups] == [
            [texts(x) for x in group.episodes] for group in alone
        ]
        assert [[(x.finish_reason, x.parts, x.error, x.turns) for x in group.episodes] for group in groups] == [
            [(x.finish_reason, x.parts, x.error, x.turns) for x in group.episodes] for group in alone
        ]
        assert groups[0].verdicts == alone[0].verdicts
        assert groups[2].verdicts == alone[2].verdicts
        errors = [verdict.error.partition(" (")[0] for verdict in groups[1].verdicts]
        assert errors == [*["timed out"] * 2, "the environment raised RuntimeError: what is this", "timed out"]
    assert [started for _, started, _, _ in found] == [{"t/train/0", "t/train/2"}, {"t/train/1"}]
    assert [(judged, called) for _, _, judged, called in found] == [(6, 4), (0, 2)]
