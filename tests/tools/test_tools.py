"""Tools by name, their arguments, and whatever comes of their functions."""

import dataclasses
import re

import pytest

from rlvr_jax.tools import Tool, job_of, make_tool, make_tools, result_of
from rlvr_jax.tools.schema import wrong
from rlvr_jax.verifiers.jobs import ToolError
from rlvr_jax.verifiers.pool import Pool

MINE = "tests.tools.mine"


def test_a_function_becomes_a_tool_by_its_hints_and_docstring():
    tool = make_tool(f"{MINE}:repeat", {"sep": "-", "tokens": 50, "description": "Says it again."})
    assert (tool.name, tool.description, tool.tokens) == ("repeat", "Says it again.", 50)
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "What is repeated."},
            "times": {"type": "integer", "description": "How often."},
            "style": {"type": "string", "enum": ["plain", "loud"], "description": "Whether it is shouted."},
        },
        "required": ["text"],
    }
    assert tool.only == "text"
    with Pool(0) as pool:
        (future,) = pool.submit([job_of(tool, {"text": "a", "times": 3})])
    result = result_of(future.result(), None)
    assert (result.outcome, result.text, result.seconds >= 0) == ("ok", "a-a-a", True)


def test_tools_by_name_and_options():
    tools = make_tools({"calculator": {}, "best": {"tool": f"{MINE}:made", "top": 20}, f"{MINE}:repeat": {}})
    assert [tool.name for tool in tools] == ["calculator", "best", "repeat"]
    assert (tools[1].options, tools[1].tokens) == ({"top": 20}, 9)
    assert [tool.name for tool in make_tools(("submit", "python"))] == ["submit", "python"]
    with Pool(0) as pool:
        (future,) = pool.submit([job_of(tools[1], {})])
    result = result_of(future.result(), None)
    assert (result.outcome, result.text) == ("ok", str(list(range(20))))


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("python", "a list of names"),
        ((), "there are python, calculator"),
        (("abacus",), "no tool 'abacus'; there are python, calculator"),
        (("python", "python"), "two tools of the name 'python'"),
        ({"python": {"cpu_seconds": 0}}, "cpu_seconds.*0"),
        ({"python": {"seed": 0}}, "no option 'seed'; the options are state, engine"),
        ({"python": {"engine": "nope"}}, "engine.*auto.*'nope'"),
        ({"python": {"packages": ["no_such_package"]}}, "no_such_package"),
        ({"submit": {"answer": "####"}}, "answer"),
        ({"a b": {"tool": "python"}}, "'a b'"),
        ((f"{MINE}:undescribed",), r"mine\.py, line \d+: .*undescribed"),
        ((f"{MINE}:untyped",), r"mine\.py, line \d+: .*text"),
        ({f"{MINE}:repeat": {"colour": 1}}, r"mine\.py, line \d+: .*colour"),
        ((f"{MINE}:missing",), "no 'missing'"),
    ],
)
def test_tools_that_can_not_be_made_are_named(wanted, why):
    with pytest.raises(ValueError, match=why):
        make_tools(wanted)


OBJECT = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 1, "maximum": 3},
        "names": {"type": "array", "items": {"type": "string", "minLength": 2}, "maxItems": 2},
        "where": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "kind": {"enum": ["a", "b"]},
        "open": {"type": "object", "properties": {"x": {"type": "number"}}, "additionalProperties": True},
        "flag": {"type": ["boolean", "null"]},
    },
    "required": ["n"],
}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"n": 2}, None),
        ({"n": 2.0, "names": ["ab"], "where": None, "kind": "a", "open": {"x": 1, "y": 2}, "flag": True}, None),
        ({}, "lack n"),
        ({"n": True}, "n must be of type integer, not True"),
        ({"n": "2"}, "n must be of type integer, not '2'"),
        ({"n": 2.5}, "n must be of type integer"),
        ({"n": float("inf")}, "n must be of type integer"),
        ({"n": 4}, "n must be at most 3"),
        ({"n": 0}, "n must be at least 1"),
        ({"n": 1, "names": ["ab", "c"]}, r"names\[1\] must have at least 2"),
        ({"n": 1, "names": ["ab"] * 3}, "names must have at most 2"),
        ({"n": 1, "where": 5}, "where must be of type string"),
        ({"n": 1, "kind": "c"}, "kind must be one of 'a', 'b'"),
        ({"n": 1, "open": {"x": "1"}}, "x must be of type number"),
        ({"n": 1, "m": 1}, "have m, and may have n, names"),
        ({"n": 1, "flag": 0}, "flag must be of type boolean or null"),
        ([], "must be of type object"),
    ],
)
def test_arguments_are_held_against_their_schema(value, why):
    found = wrong(OBJECT, value)
    assert (found is None) == (why is None)
    assert re.search(why or "", found or "")


BAD = make_tool(f"{MINE}:bad", {"tokens": 100})


@pytest.mark.parametrize(
    ("what", "outcome", "text"),
    [
        ("raises", "raised", "RuntimeError: no luck"),
        ("refuses", "not_found", "nothing found"),
        ("leaves", "raised", "SystemExit: 3"),
        ("floods", "cut", "x" * 3201),
        ("bytes", "binary", "the output is no text (16 bytes)"),
        ("nul", "binary", "the output is no text (3 characters)"),
        ("half", "binary", "the output is no text (1 characters)"),
        ("control", "binary", "the output is no text (6 characters)"),
        ("object", "raised", "the output, of type object, is neither text nor JSON data"),
        ("infinite", "raised", "the output, of type dict, is neither text nor JSON data"),
        ("file", "raised", "FileNotFoundError: [Errno 2] No such file or directory: 'notes.txt'"),
        ("nothing", "ok", "null"),
        ("data", "ok", '{"é": [1, 2.5, true]}'),
    ],
)
def test_whatever_a_function_does_has_a_name_and_a_text(what, outcome, text):
    with Pool(0) as pool:
        (future,) = pool.submit([job_of(BAD, {"what": what})])
    result = result_of(future.result(), None)
    assert result.outcome == outcome
    assert result.text.startswith(text)
    assert result.succeeded == (outcome in ("ok", "cut"))


def test_a_function_that_hangs_dies_or_hoards_costs_its_own_call_only():
    tool = dataclasses.replace(BAD, timeout=0.5)
    with Pool(1, timeout=60, memory_bytes=512 << 20) as pool:
        whats = ("hangs", "dies", "hoards", "data")
        futures = pool.submit([job_of(tool if what == "hangs" else BAD, {"what": what}) for what in whats])
        results = [found(future) for future in futures]
    assert [result.outcome for result in results] == ["timed_out", "died", "out_of_memory", "ok"]
    assert results[0].seconds == 0.5


def found(future):
    try:
        return result_of(future.result(), None)
    except ToolError as error:
        return result_of(None, str(error))


def test_the_schema_is_in_the_form_of_chat_templates():
    tool = Tool("f", "Does.", {"type": "object", "properties": {}})
    assert tool.schema == {
        "type": "function",
        "function": {"name": "f", "description": "Does.", "parameters": {"type": "object", "properties": {}}},
    }
