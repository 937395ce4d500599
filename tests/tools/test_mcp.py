"""Tools of servers of the Model Context Protocol, most of which misbehave."""

import json
import sys
import time
from pathlib import Path

import psutil
import pytest

from rlvr_jax.rollout.playing import Limits
from rlvr_jax.tools import job_of, make_tools, mcp, result_of
from rlvr_jax.tools.schema import converted, wrong
from rlvr_jax.verifiers.pool import Pool
from tests.envs.test_tool_use import EOS, played
from tests.rollout.test_collector import texts

COMMAND = [sys.executable, str(Path(__file__).with_name("mcp_server.py"))]
OPTIONS = {"command": COMMAND, "timeout": 0.5}


@pytest.fixture(scope="module")
def tools():
    return make_tools({"mcp": OPTIONS})


def results(pool, tool, *arguments):
    return [result_of(future.result(), None) for future in pool.submit([job_of(tool, x) for x in arguments])]


def process_of(pool, tool):
    (result,) = results(pool, tool, {})
    return json.loads(result.text)["process"]


def test_the_tools_of_a_server_have_its_names_and_schemas(tools):
    bad, echo = tools
    assert (bad.name, bad.description, bad.parameters["required"]) == ("bad", "Misbehaves.", ["what"])
    assert (echo.name, echo.description, list(echo.parameters["properties"])) == ("echo_number", "", ["server"])
    other, own = make_tools(
        {"its": {"tool": "mcp", **OPTIONS, "only": ["echo.number"], "prefix": "its_", "tokens": 9}, "submit": {}}
    )
    assert (other.name, other.tokens, own.name) == ("its_echo_number", 9, "submit")


@pytest.mark.parametrize(
    ("what", "outcome", "text"),
    [
        ("fails", "raised", "no luck"),
        ("missing", "raised", "Method not found"),
        ("image", "binary", "the output is no text: (image left out)"),
        ("both", "ok", "a\n(image left out)"),
        ("data", "ok", '{"a": [1, "é"]}'),
        ("nul", "binary", "the output is no text (3 characters)"),
        ("long", "cut", "x" * 512 * 32),
        ("wrong", "malformed", "the server's result is malformed"),
    ],
)
def test_what_a_tool_answers_is_an_outcome_by_name_and_the_server_goes_on(tools, what, outcome, text):
    with Pool(0) as pool:
        before = process_of(pool, tools[1])
        (result,) = results(pool, tools[0], {"what": what})
        assert (result.outcome, result.text[: len(text)]) == (outcome, text)
        assert process_of(pool, tools[1]) == before


@pytest.mark.parametrize(
    ("what", "outcome", "text"),
    [
        ("dies", "died", "the server died (exit status 3)"),
        ("hangs", "timed_out", "the call took more than 0.5 s"),
        ("binary", "malformed", "the server sent what is no message"),
        ("no message", "malformed", "the server sent what is no message"),
        ("floods", "flood", "the server sent a message of more than 4 MiB"),
    ],
)
def test_a_server_that_breaks_costs_one_call_and_is_replaced(tools, what, outcome, text):
    with Pool(0) as pool:
        before = process_of(pool, tools[1])
        (result,) = results(pool, tools[0], {"what": what})
        assert (result.outcome, result.text) == (outcome, text)
        after = process_of(pool, tools[1])
    assert after != before
    assert ended(before)


def ended(process, seconds=10.0):
    """True once there is no such process, or only its entry in the table."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_half_a_surrogate_pair_costs_one_call(tools):
    with Pool(0) as pool:
        before = process_of(pool, tools[1])
        (result,) = results(pool, tools[0], {"what": "\ud800"})
        assert (result.outcome, "surrogate" in result.text) == ("raised", True)
        assert process_of(pool, tools[1]) == before


def test_a_message_that_can_not_be_sent_costs_one_call_and_the_server_is_replaced(tools, monkeypatch):
    with Pool(0) as pool:
        before = process_of(pool, tools[1])
        with monkeypatch.context() as patched:
            patched.setattr(mcp, "_check_characters", lambda _: None)
            (result,) = results(pool, tools[0], {"what": "\ud800"})
        assert (result.outcome, "can't be sent" in result.text) == ("malformed", True)
        assert process_of(pool, tools[1]) != before
    assert ended(before)


def test_a_server_has_ended_when_its_tools_are_listed():
    known = set(psutil.Process().children())
    make_tools({"mcp": OPTIONS})
    with pytest.raises(ValueError, match="late"):
        make_tools({"mcp": {**OPTIONS, "command": [*COMMAND, "late"], "start_seconds": 0.3}})
    assert {x for x in psutil.Process().children() if x.status() != psutil.STATUS_ZOMBIE} <= known


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": 5}, r"\$\.properties\.a\.type: 5"),
        ({"type": [{}]}, r"\$\.properties\.a\.type: \[\{\}\]"),
        ({"anyOf": "x"}, "anyOf: 'x'"),
        ({"enum": 5}, "enum: 5"),
        ({"minimum": "5"}, "minimum: '5'"),
        ({"$ref": "#/$defs/b"}, "'#/\\$defs/b' leads to no part"),
        ({"$ref": "http://x/y"}, "'http://x/y' leads to no part"),
        ({"$ref": "#/$defs/c"}, "'#/\\$defs/c' leads into itself"),
    ],
)
def test_a_schema_that_is_none_is_named_in_one_line(schema, why):
    with pytest.raises(ValueError, match=why) as caught:
        mcp._checked({"properties": {"a": schema}, "$defs": {"c": {"items": {"$ref": "#/$defs/c"}}}})
    assert "\n" not in str(caught.value)


def test_references_are_put_in_and_schemas_may_be_true_or_false():
    definitions = {"n": {"type": "integer", "maximum": 9}, "some": {"type": "array", "items": {"$ref": "#/$defs/n"}}}
    properties = {
        "a": {"$ref": "#/$defs/some", "maxItems": 2}, "b": {"items": True}, "c": True, "d": False,
        "$ref": {"enum": [1]},
    }  # fmt: skip
    schema = mcp._checked({"properties": properties, "$defs": definitions, "additionalProperties": {}})
    assert schema["properties"]["a"] == {"type": "array", "items": definitions["n"], "maxItems": 2}
    right = {"a": [9.0], "b": [None], "c": {}, "$ref": 1, "e": 1}
    assert (wrong(schema, right), converted(schema, right)["a"]) == (None, [9])
    for value, why in (({"a": [10]}, "at most 9"), ({"a": [1, 2, 3]}, "at most 2"), ({"d": 1}, "d must be one of")):
        assert why in wrong(schema, value)


def test_a_server_belongs_to_a_process_of_the_pool_and_ends_with_it(tools):
    with Pool(1) as pool:
        servers = [process_of(pool, tools[1]) for _ in range(2)]
        assert servers[0] == servers[1]
        assert [psutil.Process(servers[0]).ppid()] == pool.process_ids
    assert ended(servers[0])


def test_a_server_gets_the_variables_that_are_named(monkeypatch):
    monkeypatch.setenv("SECRET", "s3")
    with Pool(0) as pool:
        for variables, secret in (((), None), (("SECRET", "MISSING"), "s3")):
            (tool,) = make_tools({"mcp": {**OPTIONS, "only": ["echo.number"], "variables": variables}})
            (result,) = results(pool, tool, {"server": 1})
            assert json.loads(result.text) == {
                "server": 1, "process": json.loads(result.text)["process"], "secret": secret,
            }  # fmt: skip


def test_a_server_that_dies_costs_only_the_sample_that_called_it():
    options = {"tools": {"mcp": {**OPTIONS, "only": ["bad"]}}, "instructions": ""}
    limits = Limits(prompt=20, response=200, stop_tokens=(EOS,))
    (group,) = played([["<bad>dies</bad>", "84"], ["<bad>marks</bad>", "84"]], options, limits)
    assert [[x.outcome for x in episode.calls] for episode in group.episodes] == [["died"], ["ok"]]
    assert [(episode.finish_reason, episode.error) for episode in group.episodes] == [("stop", None)] * 2
    assert [verdict.parts["tool_errors"] for verdict in group.verdicts] == [1, 0]
    said = [texts(episode)[2][1] for episode in group.episodes]
    assert said[0] == "\n<output>Error: the server died (exit status 3)</output>\n"
    assert said[1] == "\n<output>< /output>< bad></output>\n"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"command": [*COMMAND, "broken"]}, r"mcp_server\.py broken' can't be started: .*exit status 1.*no licence"),
        ({"command": "no_such_program --all"}, "'no_such_program --all' can't be started: .*No such file"),
        ({"command": [*COMMAND, "late"], "start_seconds": 0.3}, "late' is not ready after 0.3 s"),
        ({"command": [*COMMAND, "empty"]}, "empty' has no tools"),
        ({"folder": "/no/such/folder"}, "can't be started: .*/no/such/folder"),
        ({"only": ["search"]}, "no tool 'search'; it has bad, echo.number"),
        ({"command": []}, r"command .*\[\]"),
        ({"command": 5}, "command .*5"),
        ({"timeout": 0}, "timeout .*0"),
        ({"timeout": float("nan")}, "timeout .*nan"),
        ({"prefix": "a b"}, "'a bbad'"),
        ({"commands": []}, "no option 'commands'; the options are command, only"),
    ],
)
def test_a_server_that_can_not_be_used_is_named_before_the_run(change, why):
    with pytest.raises(ValueError, match=why):
        make_tools({"mcp": {**OPTIONS, **change}})


def test_names_that_clash_and_a_missing_package_are_named(monkeypatch):
    with pytest.raises(ValueError, match=r"two tools of the name 'bad'.*prefix"):
        make_tools({"a": {"tool": "mcp", **OPTIONS}, "b": {"tool": "mcp", **OPTIONS}})
    monkeypatch.setattr(mcp, "mcp", None)
    with pytest.raises(ValueError, match=r"pip install 'rlvr_jax\[mcp\]'"):
        make_tools({"mcp": OPTIONS})


def test_a_server_that_can_not_be_started_again_is_an_outcome(tmp_path):
    program = tmp_path / "server.py"
    program.write_text(Path(COMMAND[1]).read_text())
    bad, _ = make_tools({"mcp": {**OPTIONS, "command": [sys.executable, str(program)]}})
    program.write_text("raise SystemExit('no licence')")
    with Pool(0) as pool:
        (result,) = results(pool, bad, {"what": "data"})
    assert result.outcome == "not_started"
    assert result.text.endswith("server.py' can't be started: the server died (exit status 1); it wrote: no licence")
