"""The environment of a policy with tools: what it does with a turn, its limits, what it counts."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from rlvr_jax.config import Config, RolloutConfig, TaskConfig
from rlvr_jax.envs import Call, Done, Say, ToolResult, begin_group, make_env
from rlvr_jax.envs.tool_use import Reliability, _checked, garbled
from rlvr_jax.errors import ConfigError
from rlvr_jax.rollout.actions import observed
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.episode import Span
from rlvr_jax.rollout.playing import Limits, Playing, Source
from rlvr_jax.tasks import Example, Task
from rlvr_jax.text.prompts import continuation, shortener
from rlvr_jax.text.tokenizers import make_tokenizer
from rlvr_jax.tools import make_format, make_tools
from rlvr_jax.tools.tool import Tool
from rlvr_jax.training.problems import prompted_tasks, sources
from rlvr_jax.verifiers.jobs import Job
from rlvr_jax.verifiers.pool import Pool
from rlvr_jax.verifiers.verdict import Verdict
from tests.rollout.test_collector import EOS, LIMITS, TOKENIZER, Policy, texts

MINE = "tests.tools.mine"
BAD = {"bad": {"tool": f"{MINE}:bad", "tokens": 40}}
CALCULATOR = {
    "tools": ["calculator"],
    "format_options": {"marks": {"calculator": ("<", ">")}, "observation": "{}|"},
    "instructions": "",
    "failure": "!",
}
EXAMPLE = Example("t/train/0", "12*7=", "84", "t")


def played(said, options, limits=LIMITS, example=EXAMPLE):
    """The groups of a policy that says what it is told to, with tools and verifiers in this process."""
    env = make_env("tools", options).fitted(shortener(TOKENIZER))
    ends = tuple(TOKENIZER.convert_tokens_to_ids(x) for x in env.ends if len(x) == 1)
    source = Source(Task("t", f"{MINE}:none", None, None), env, continuation(TOKENIZER, "plain"), ends)
    with Pool(0) as pool:
        collector = Collector(Policy(*said), Judging(pool), {"t": source}, TOKENIZER, limits)
        collector.start(0, [example], len(said), jax.random.key(0), 1.0)
        return collector.take(0)


class Judging:
    """A pool whose verdicts have the judged text as their answer."""

    def __init__(self, pool):
        self.pool = pool

    def submit(self, jobs):
        futures = self.pool.submit([job for job in jobs if not isinstance(job, Job)])
        for job in jobs:
            if isinstance(job, Job):
                (future,) = self.pool.submit([Job(judged, job.completion, job.reference)])
                futures.append(future)
        return futures


def judged(completion, reference):
    return Verdict(float(completion.endswith(reference)), answer=completion)


@pytest.mark.parametrize("levels", [60, 100, 300, 450, 900, 10_000])
def test_arguments_that_are_nested_too_deeply_are_a_mistake_and_no_error(levels):
    tool = Tool("f", "", {"type": "object", "properties": {"x": {}}})
    value = "[" * levels + "]" * levels
    for name, text in (
        ("tags", f"<f>{value}</f>"),
        ("hermes", f'<tool_call>{{"name": "f", "arguments": {{"x": {value}}}}}</tool_call>'),
        ("olmo3", f"<function_calls>f(x={value})</function_calls>"),
    ):
        (call,) = make_format(name, (tool,)).parse(text)
        wrong = _checked(call, {"f": tool}).wrong
        assert wrong == "" if levels == 60 else wrong in ("wrong_arguments", "not_json", "syntax")


def test_calls_are_answered_and_a_turn_without_one_is_the_answer():
    (group,) = played([["<12*7>", "84"], ["84"], ["<12*", "<1/0>", "1>", "84"]], CALCULATOR)
    used, direct, wrong = group.episodes
    assert texts(used) == [("prompt", "12*7="), ("policy", "<12*7>"), ("env", "84|"), ("policy", "84")]
    assert [verdict.answer for verdict in group.verdicts] == ["<12*7>\n84", "84", "<12*\n<1/0>\n1>\n84"]
    assert [text for author, text in texts(wrong) if author == "env"] == ["!|", "!|", "!|"]
    assert [(call.turn, call.tool, call.outcome) for call in wrong.calls] == [
        (0, "calculator", "unclosed"), (1, "calculator", "raised"), (2, "", "unopened"),
    ]  # fmt: skip
    assert [verdict.parts for verdict in group.verdicts] == [
        {"tool_calls": 1, "tool_errors": 0, "malformed_calls": 0, "calculator_calls": 1},
        {"tool_calls": 0, "tool_errors": 0, "malformed_calls": 0, "calculator_calls": 0},
        {"tool_calls": 1, "tool_errors": 1, "malformed_calls": 2, "calculator_calls": 1},
    ]
    assert (direct.calls, used.calls[0].characters) == ((), 2)


def test_an_episode_that_a_limit_ends_keeps_its_calls_and_their_cost():
    limits = dataclasses.replace(LIMITS, turns=1)
    (group,) = played([["<1+1>", "2"]], CALCULATOR, limits)
    assert group.episodes[0].finish_reason == "turns"
    assert group.verdicts[0].parts["tool_calls"] == 1
    assert [call.outcome for call in group.episodes[0].calls] == ["ok"]
    (group,) = played([["<1+1>", "22222222222"]], CALCULATOR, dataclasses.replace(LIMITS, response=12))
    assert (group.episodes[0].finish_reason, group.verdicts[0].parts["tool_calls"]) == ("length", 1)


def test_a_submitted_answer_is_what_is_judged():
    options = {"tools": {"submit": {"answer": "#### {}"}, "calculator": {}}, "format": "hermes"}
    call = '<tool_call>{"name": "submit", "arguments": {"answer": "84"}}</tool_call>'
    limits = Limits(prompt=20, response=200, stop_tokens=(EOS,))
    (group,) = played([[f"It is 85.\n{call}"]], options, limits)
    assert (group.verdicts[0].answer, group.verdicts[0].score) == ("#### 84", 1)
    assert group.episodes[0].response == f"It is 85.\n{call}"  # for format checks
    assert group.episodes[0].finish_reason == "stop"
    assert group.verdicts[0].parts == {"tool_calls": 0, "tool_errors": 0, "malformed_calls": 0, "calculator_calls": 0}


def steps(options, turns, results=lambda _: ToolResult({"outcome": "ok", "text": "1", "seconds": 0.25})):
    """The actions of an environment after these turns, each tool giving a result."""
    env, found = make_env("tools", options), []
    state, _ = env.start(EXAMPLE)
    for turn in turns:
        state, action = env.step(state, turn)
        jobs = ()
        if isinstance(action, Call):
            jobs = action.calls
            state, action = env.receive(state, tuple(map(results, jobs)))
        found.append((action, jobs))
    return found, env.parts_of(state), env.calls_of(state)


def call(name, **arguments):
    return make_format("hermes", make_tools(["python"])).write(name, arguments)


HERMES = {"tools": {"python": {"state": True}, "calculator": {}}, "format": "hermes"}


@pytest.mark.parametrize(
    ("turn", "outcome", "told"),
    [
        (call("search", query="x"), "unknown_tool", "no tool 'search'; there are python, calculator"),
        (call("python", source="x"), "wrong_arguments", "lack code"),
        (call("python", code=1), "wrong_arguments", "code must be of type string, not 1"),
        (call("python", code="1", file="x"), "wrong_arguments", "have file, and may have code"),
        (call("python", code="1") * 2, "several", "2 calls in a turn, and 1 can be made"),
        ("<tool_call>", "unclosed", "not closed"),
    ],
)
def test_a_call_that_can_not_be_made_is_an_observation_with_the_reason(turn, outcome, told):
    ((action, jobs),), parts, calls = steps(HERMES, [turn])
    assert jobs == ()
    assert action.observation[0]["content"].startswith("Error: ")
    assert told in action.observation[0]["content"]
    assert [(call.outcome, call.executed, call.succeeded) for call in calls] == [(outcome, False, False)]
    assert (parts["malformed_calls"], parts["tool_calls"]) == (1, 0)


def test_earlier_calls_of_a_tool_with_state_come_along_but_for_those_that_a_limit_ended():
    outcomes = iter(["ok", "raised", "timed_out", "ok"])
    result = lambda _: ToolResult({"outcome": next(outcomes), "text": "t", "seconds": 1.0})  # noqa: E731
    turns = [call("python", code=f"x{i}") for i in range(4)]
    found, _, calls = steps(HERMES, turns, result)
    earlier = [job.kwargs["arguments"]["earlier"] for _, (job,) in found]
    assert earlier == [[], [{"code": "x0"}], [{"code": "x0"}, {"code": "x1"}], [{"code": "x0"}, {"code": "x1"}]]
    assert [call.outcome for call in calls] == ["ok", "raised", "timed_out", "ok"]
    env = make_env("tools", {**HERMES, "tools": {"python": {"state": False}}})
    _, action = env.step(env.start(EXAMPLE)[0], turns[0])
    assert "earlier" not in action.calls[0].kwargs["arguments"]


def test_a_whole_number_written_as_a_decimal_reaches_the_function_as_an_integer():
    options = {"tools": {"repeat": {"tool": f"{MINE}:repeat"}}, "format": "hermes"}
    ((_, (job,)),), _, _ = steps(options, [call("repeat", text="a", times=2.0)])
    times = job.kwargs["arguments"]["times"]
    assert (times, type(times)) == (2, int)


def started(env, turns=16):
    """The environment's source with a tokenizer of few characters."""
    config = Config(tasks={"t": TaskConfig()}, rollout=RolloutConfig(max_turns=turns))
    tokenizer = make_tokenizer("characters", {"t": "0123456789*()/#=|<>!"})
    (source,) = sources(config, {"t": Task("t", f"{MINE}:none", None, None)}, {"t": env}, tokenizer).values()
    return source


def test_observations_that_the_tokenizer_can_not_encode_are_refused_before_a_run():
    for change, lacking in (({"failure": "Error: {}"}, "'E' 'r'"), ({"failure": "?"}, r"'\?'")):
        with pytest.raises(ConfigError, match=rf"config\.tasks\.t\.environment_options: .*{lacking}.*failure"):
            started(make_env("tools", CALCULATOR | change))
    with pytest.raises(ConfigError, match="no tokens"):
        started(make_env("tools", CALCULATOR | {"failure": "", "format_options": {"observation": "{}"}}))
    started(make_env("tools", CALCULATOR))


def test_marks_and_instructions_that_the_tokenizer_can_not_encode_are_named_with_what_to_do():
    marks = {"marks": {"calculator": ["[", "]"]}, "observation": "{}|"}
    with pytest.raises(ConfigError, match=r"config\.tasks\.t\.environment_options: .* mark .*'\]'.*01234.*'bytes'"):
        started(make_env("tools", CALCULATOR | {"format_options": marks}))
    env = make_env("tools", {**CALCULATOR, "instructions": "Use tools. "})
    config, task = Config(tasks={"t": TaskConfig()}), Task("t", f"{MINE}:none", lambda *_: EXAMPLE, lambda _: 1)
    with pytest.raises(ConfigError, match=r"tasks\.t\.environment_options: the instr.*'U'.*'bytes'.*instruc"):
        prompted_tasks(config, {"t": task}, {"t": env}, make_tokenizer("characters", {"t": "0123456789"}))


@pytest.mark.parametrize("around", [None, "compaction", "subcalls"])
def test_outputs_are_cut_to_tokens_of_the_policy_within_other_environments_too(around):
    options = {"tools": {"calculator": {"tokens": 4}}, "format_options": CALCULATOR["format_options"], "failure": "!"}
    name = "tools" if around is None else around
    env = make_env(name, options if around is None else {"environment": "tools", "environment_options": options})
    room = RolloutConfig(max_sequences=1 + (around is not None), max_response_length=500)
    config, task = Config(tasks={"t": TaskConfig()}, rollout=room), Task("t", f"{MINE}:none", None, None)
    (source,) = sources(config, {"t": task}, {"t": env}, make_tokenizer("bytes")).values()
    for text, outcome, told in (("1234", "ok", "1234|"), ("12345", "cut", "1…|"), ("é" * 50, "cut", "…|")):
        state, _ = source.env.step(source.env.start(EXAMPLE)[0], "<1+1>")
        value = {"outcome": "ok", "text": text, "seconds": 0.0}
        state, said = source.env.receive(state, (ToolResult(value),))
        assert (said, [call.outcome for call in source.env.calls_of(state)]) == (Say(told), [outcome])


def test_one_turn_is_too_few_for_tools(caplog):
    started(make_env("tools", CALCULATOR), turns=1)
    assert "rollout.max_turns" in caplog.text


@pytest.mark.parametrize("text", ["0.5", ""])
def test_an_output_without_tokens_is_a_failure_that_the_policy_is_told(text):
    options = CALCULATOR | {"format_options": {**CALCULATOR["format_options"], "observation": "{}"}}
    env = make_env("tools", options)
    playing = Playing(
        0, 0, EXAMPLE, np.zeros(2, np.uint32), 1.0, started(env), [Span("policy", np.array([1], np.int32))], True
    )
    state, action = env.step(env.start(EXAMPLE)[0], "<1/2>")
    playing.state, action = env.receive(state, (ToolResult({"outcome": "ok", "text": text, "seconds": 0.0}),))
    tokens = observed(playing, action)
    assert tokens == playing.source.observe("!", -1)
    (record,) = env.calls_of(playing.state)
    assert (record.outcome, record.executed, record.characters) == ("unencoded", True, 1)
    assert env.parts_of(playing.state)["tool_errors"] == 1


def test_several_calls_of_a_turn_are_answered_in_order():
    turn = call("calculator", expression="1") + call("nothing") + call("calculator", expression="2")
    result = lambda job: ToolResult({"outcome": "ok", "text": job.kwargs["arguments"]["expression"], "seconds": 0})  # noqa: E731
    ((action, jobs),), parts, _ = steps({**HERMES, "calls_in_a_turn": 3}, [turn], result)
    said = [message["content"] for message in action.observation]
    assert (len(jobs), said[0], said[2]) == (2, "1", "2")
    assert said[1].startswith("Error: there is no tool 'nothing'")
    assert (parts["tool_calls"], parts["malformed_calls"], parts["calculator_calls"]) == (2, 1, 2)


def test_limits_of_calls_and_of_the_seconds_of_tools():
    turns = [call("calculator", expression="1")] * 3
    found, parts, _ = steps({**HERMES, "max_calls": 2}, turns)
    assert [type(action) for action, _ in found] == [Say, Say, Done]
    assert (found[2][0].reason, found[2][1], parts["tool_calls"]) == ("calls", (), 2)
    found, parts, _ = steps({**HERMES, "max_seconds": 0.4}, turns[:2])
    assert (found[1][0].reason, parts["tool_calls"]) == ("tool_seconds", 2)
    late = lambda _: ToolResult(error="timed out after 9 s")  # noqa: E731
    ((action, _),), _, (record,) = steps({**HERMES, "max_seconds": 8.5}, turns[:1], late)
    assert (action.reason, record.outcome, record.seconds) == ("tool_seconds", "timed_out", 9)


def test_a_tool_that_is_made_to_fail_does_so_by_the_sample_and_the_number_of_the_call():
    options = {**HERMES, "reliability": {"calculator": {"works": 0.3, "shows": "garbage"}}}
    result = lambda _: ToolResult({"outcome": "ok", "text": "84 cats, A", "seconds": 0})  # noqa: E731
    turns = [call("calculator", expression="1")] * 200
    found, parts, calls = steps(options, turns, result)
    assert found == steps(options, turns, result)[0]
    said = [action.observation[0]["content"] for action, _ in found]
    worked = [text == "84 cats, A" for text in said]
    assert 0.2 < sum(worked) / 200 < 0.4
    assert [call.outcome for call in calls] == ["ok" if fine else "unreliable" for fine in worked]
    assert parts["tool_errors"] == 200 - sum(worked)
    for text in said:
        assert [c.isdigit() for c in text] == [c.isdigit() for c in "84 cats, A"]
        assert text == "84 cats, A" or all(a != b for a, b in zip(text, "84 cats, A", strict=True) if a.isalnum())
    env = make_env("tools", options)
    samples = [state.id for state in begin_group(env, EXAMPLE, (4, 5))]
    assert samples == ["t/train/0/4", "t/train/0/5"]
    options["reliability"] = {"calculator": {"works": 0.0}}
    ((action, jobs),), _, _ = steps(options, turns[:1], result)
    assert (action.observation[0]["content"], jobs) == ("Error: the tool failed", ())
    assert garbled("a1", 0) == garbled("a1", 0) != "a1"


def test_an_episode_whose_tool_failed_by_no_fault_of_the_policy_is_left_out_of_its_group():
    reliability = {"calculator": {"works": 0.0, "shows": "garbage"}}
    options = {**CALCULATOR, "reliability": reliability, "unjudged": ("unreliable", "timed_out")}
    (group,) = played([["<1+1>", "84"], ["84"], ["1>", "84"]], options)
    assert [episode.finish_reason for episode in group.episodes] == ["tool_error", "stop", "stop"]
    assert [verdict.error and verdict.error[:41] for verdict in group.verdicts] == [
        "the tool calculator failed (unreliable): ", None, None,
    ]  # fmt: skip
    assert [[call.outcome for call in x.calls] for x in group.episodes] == [["unreliable"], [], ["unopened"]]
    late = lambda _: ToolResult(error="timed out after 9 s")  # noqa: E731
    ((action, _),), _, _ = steps({**HERMES, "unjudged": ["timed_out"]}, [call("calculator", expression="1")], late)
    assert (action.reason, action.error) == (
        "tool_error", "the tool calculator failed (timed_out): timed out after 9 s",
    )  # fmt: skip


def test_a_tool_is_repaired_by_the_training_steps_that_the_policy_has_had():
    works = Reliability([[10, 0.25], [20, 0.75]])
    assert [works.after(n) for n in (0, 10, 15, 20, 99)] == [0.25, 0.25, 0.5, 0.75, 0.75]
    assert Reliability(0.3).after(7) == 0.3
    # The policy of these tests has had three.
    for points, told in (([[3, 0.0], [4, 1.0]], "!|"), ([[2, 0.0], [3, 1.0]], "2|")):
        options = {**CALCULATOR, "reliability": {"calculator": {"works": points}}}
        (group,) = played([["<1+1>", "2"]], options)
        assert texts(group.episodes[0])[2] == ("env", told)


@pytest.mark.parametrize(
    ("what", "outcome"), [("raises", "raised"), ("floods", "cut"), ("nul", "binary"), ("refuses", "not_found")]
)
def test_whatever_a_tool_does_is_an_observation(what, outcome):
    options = {"tools": BAD, "instructions": "", "format_options": {"marks": {"bad": ("<", ">")}}}
    limits = Limits(prompt=20, response=300, stop_tokens=(EOS,))
    (group,) = played([[f"<{what}>", "84"]], options, limits)
    (episode,) = group.episodes
    assert (episode.finish_reason, episode.error, [call.outcome for call in episode.calls]) == ("stop", None, [outcome])
    if outcome == "raised":  # the policy is told no place
        assert re.fullmatch(r"RuntimeError: no luck \(/.*\.py, line \d+\)", episode.calls[0].error)
        assert ".py" not in texts(episode)[2][1]
    assert texts(episode)[2][1].startswith("\n<output>")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tools": []}, "tools are empty"),
        ({"tools": ["python"], "format": "xml"}, "no format 'xml'"),
        ({"tools": ["python"], "max_calls": -1}, "max_calls.*-1"),
        ({"tools": ["python"], "calls_in_a_turn": 0}, "calls_in_a_turn.*0"),
        ({"tools": ["python"], "max_seconds": float("nan")}, "max_seconds"),
        ({"tools": ["python"], "unjudged": ["unknown_tool"]}, "unjudged.*'unknown_tool'"),
        ({"tools": ["python"], "unjudged": "died"}, "unjudged.*'died'"),
        ({"tools": ["python"], "reliability": {"search": {"works": 1}}}, "no tool 'search'"),
        ({"tools": ["python"], "reliability": {"python": {"works": 2}}}, "from 0 to 1.*not 2"),
        ({"tools": ["python"], "reliability": {"python": {"works": []}}}, r"not \[\]"),
        ({"tools": ["python"], "reliability": {"python": {"works": [[5, 1.0], [5, 0.5]]}}}, r"must rise, not \[5, 5\]"),
        ({"tools": ["python"], "reliability": {"python": {"works": 1, "shows": "noise"}}}, "error, garbage"),
        ({"tools": ["python"], "reliability": {"python": {"work": 1}}}, "work"),
        ({"tool": ["python"]}, "no option 'tool'; the options are tools, format"),
        ({"tools": {"python": None}}, "tools.*None"),
        ({"tools": {"calculator": {"timeout": "x"}}}, "timeout.*'x'"),
        ({"tools": {"calculator": {"timeout": -1}}}, "timeout.*-1"),
        ({"tools": {"calculator": {"tokens": 1.5}}}, "tokens.*1.5"),
        ({"tools": {"calculator": {"tokens": -5}}}, "tokens.*-5"),
        ({"tools": {"calculator": {"description": 5}}}, "description.*5"),
        ({"tools": {"x": {"tool": 5}}}, "'x': tool .*5"),
        ({"tools": {"x": {"tool": f"{MINE}:repeat", "times": "x"}}}, "times .*'x'"),
        ({"tools": {"tool": {"tool": "calculator"}}}, "'tool'.*tool_calls"),
        ({"tools": {"malformed": {"tool": "calculator"}}}, "'malformed'.*malformed_calls"),
        ({"tools": ["python"], "failure": 5}, "failure.*5"),
        ({"tools": ["python"], "instructions": 5}, "instructions.*5"),
        ({"tools": ["python"], "max_calls": True}, "max_calls.*True"),
        ({"tools": ["python"], "format": ["tags"]}, "format.*tags"),
        ({"tools": ["python"], "format_options": {"marks": {"python": "<>"}}}, "marks.*'<>'"),
        ({"tools": ["python"], "format_options": {"mark": {}}}, "no option 'mark'; the options are marks, observation"),
        ({"tools": ["python"], "reliability": {"python": 0.5}}, "reliability.*0.5"),
        ({"tools": ["python"], "reliability": {"python": {"works": "a"}}}, "works.*'a'"),
    ],
)
def test_options_that_can_not_be_used_are_named(options, why):
    with pytest.raises(ValueError, match=why):
        make_env("tools", options)
