"""The rules of BFCL's checker, case by case, and the calls of its data."""

import json

import pytest

from rlvr_jax.config import Config, TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.tasks import make_task
from rlvr_jax.training import problems
from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.bfcl import wrong_arguments


def passes(value, kind, *allowed, items=None):
    """Whether a value of one parameter is right."""
    schema = {"type": kind} | ({"items": {"type": items}} if items else {})
    return not wrong_arguments({"x": value}, {"properties": {"x": schema}, "required": ["x"]}, {"x": list(allowed)})


@pytest.mark.parametrize(
    ("value", "kind", "allowed", "right"),
    [
        (5, "integer", [5], True),
        (5, "integer", [4, 5], True),
        (6, "integer", [4, 5], False),
        (5.0, "integer", [5], False),
        (True, "integer", [1], False),
        ("5", "integer", [5], False),
        (5, "float", [5.0], True),
        (5, "float", [5], True),
        (5.5, "float", [5.5, 6], True),
        (True, "float", [1.0], False),
        ("5.0", "float", [5.0], False),
        (True, "boolean", [True], True),
        (1, "boolean", [True], False),
        (False, "boolean", [True], False),
        ("true", "boolean", [True], False),
        ("Paris", "string", ["paris"], True),
        ("New York, NY", "string", ["new york NY"], True),
        ("April 1, 2024", "string", ["April 1,2024"], True),
        ("a-b_c/d.e*f^g", "string", ["abcdefg"], True),
        ("it's", "string", ['it"s'], True),
        ("x + y", "string", ["x+y"], True),
        ("x; y", "string", ["xy"], False),
        ("", "string", ["metric", ""], True),
        (7, "string", ["7"], False),
        ("7", "any", ["7"], True),
        (7, "any", [7], True),
        ([1, 2], "any", [[1, 2]], True),
        # A variable's name, where the allowed values are of another type than the schema's.
        ("n", "integer", ["n"], True),
        ("N", "integer", ["n"], False),
        ("n", "integer", ["", "n"], True),
        (5, "integer", ["n"], False),
        (None, "integer", [5], False),
        (5, "integer", [""], False),
    ],
)
def test_values_of_simple_types(value, kind, allowed, right):
    assert passes(value, kind, *allowed) == right


@pytest.mark.parametrize(
    ("value", "items", "allowed", "right"),
    [
        ([1, 2], "integer", [[1, 2]], True),
        ([2, 1], "integer", [[1, 2]], False),
        ([2, 1], "integer", [[1, 2], [2, 1]], True),
        ([1], "integer", [[1, 2]], False),
        ([1, "2"], "integer", [[1, 2]], False),
        ([1.0, 2.0], "integer", [[1, 2]], False),
        ([1, 2], "float", [[1, 2]], True),  # the allowed items are integers, too
        ([1, 2], "float", [[1.5, 2.5]], False),
        ([1, 2], "float", [[1.0, 2.0]], False),
        (["New York", "l.a."], "string", [["new york", "LA"]], True),
        (["x"], "string", [["y"]], False),
        ([], "string", [["y"], ""], True),
        ([], "string", [["y"]], False),
        ("[1, 2]", "integer", [[1, 2]], False),
        (["n"], "integer", [["n"]], True),
        ([[1, 2], [3]], "array", [[[1, 2], [3]]], True),
        ([[1, 2]], "array", [[[2, 1]]], False),
    ],
)
def test_values_of_lists(value, items, allowed, right):
    assert passes(value, "array", *allowed, items=items) == right
    if items != "array":
        assert passes(value, "tuple", *allowed, items=items) == right
        if isinstance(value, list):
            assert passes(tuple(value), "tuple", *allowed, items=items) == right
            assert not passes(tuple(value), "array", *allowed, items=items)


ADDRESS = {"city": ["Rome", "Roma"], "zip": [118, ""]}


@pytest.mark.parametrize(
    ("value", "allowed", "right"),
    [
        ({"city": "rome"}, [ADDRESS], True),
        ({"city": "Roma", "zip": 118}, [ADDRESS], True),
        ({"city": "Roma", "zip": 119}, [ADDRESS], False),
        ({"zip": 118}, [ADDRESS], False),
        ({"city": "Rome", "street": "x"}, [ADDRESS], False),
        ({"city": "Oslo"}, [ADDRESS, {"city": ["Oslo"]}], True),
        ({"city": "Oslo"}, ["", {"city": ["Oslo"]}], True),
        ({}, [{"city": [""]}], True),
        ("Rome", [ADDRESS], False),
        ({"city": ["Rome"]}, [{"city": [["rome"]]}], True),
    ],
)
def test_values_of_dictionaries(value, allowed, right):
    assert passes(value, "dict", *allowed) == right
    assert passes([value, {"n": 1}], "array", *[[x, {"n": [1]}] for x in allowed if x], items="dict") == right
    assert not passes([{"n": 1}, value], "array", *[[x, {"n": [1]}] for x in allowed if x], items="dict")
    assert not passes([value], "array", *[[x, {"n": [1]}] for x in allowed if x], items="dict")


SCHEMA = {
    "properties": {"base": {"type": "integer"}, "unit": {"type": "string"}, "round": {"type": "boolean"}},
    "required": ["base"],
}
AREA = {"function": "geo.area", "parameters": SCHEMA, "allowed": {"base": [10], "unit": ["cm", ""], "round": [True]}}


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("[geo.area(base=10, round=True)]", True),
        ("geo.area(base=10, round=True)", True),
        ("```python\n[geo.area(base=10, unit='CM', round=True)]\n```", True),
        (" [geo.area(round=True, base=5 + 5)]", False),  # an expression is text
        ("[geo.area(base=10)]", False),  # `round` may not be left out
        ("[geo.area(unit='cm', round=True)]", False),
        ("[geo.area(base=10, round=True, height=3)]", False),
        ("[geo.area(10, round=True)]", False),
        ("[geo.area(**{'base': 10, 'round': True})]", False),
        ("[area(base=10, round=True)]", False),
        ("[geo.area(base=10, round=True), geo.area(base=10, round=True)]", False),
        ("[]", False),
        ("", False),
        ("I call geo.area(base=10, round=True)", False),
        ("[geo.area(base=10, round=True", False),
        ("(" * 5000, False),
        ("[geo.area(base=10, base=10, round=True)]", False),
        ("[__import__('os').system(command='x')]", False),
    ],
)
def test_calls_in_python(completion, right):
    assert verify("bfcl", completion, AREA).score == right


@pytest.mark.parametrize(
    ("calls", "right"),
    [
        (['{"name": "geo.area", "arguments": {"base": 10, "round": true}}'], True),
        (['{"name": "geo.area", "arguments": {"base": 10}}'], False),
        (['{"name": "geo.area"}'], False),
        (['{"name": "geo.area", "arguments": [10]}'], False),
        (['{"name": "geo.area", "arguments": {"base": 10, "round": true}'], False),
        (['["geo.area"]'], False),
        (['{"name": "geo.area", "arguments": {"base": 10, "round": true}}'] * 2, False),
        (['{"name": "geo.area", "name": "geo.area", "arguments": {"base": 10, "round": true}}'], False),
        ([], False),
    ],
)
def test_calls_in_json(calls, right):
    completion = "I call " + "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)
    assert verify("bfcl", completion, AREA, format="json").score == right


def test_no_call_is_right_where_no_function_fits():
    for completion in ("", "No function fits.", "[]", "I can't; base is missing: what is it?"):
        assert verify("bfcl", completion, None).score == 1
        assert verify("bfcl", completion, None, format="json").score == 1
    for call in ("[f()]", "f(1)", "[f(a=1), g(b=x)]", "[f(**x)]"):
        assert verify("bfcl", call, None).score == 0
    verdict = verify("bfcl", "[f()]", None)
    assert (verdict.score, verdict.parts) == (0, {"called": 1.0, "right_function": 0.0})
    assert verify("bfcl", "[geo.area(base=1)]", AREA).parts == {"called": 1.0, "right_function": 1.0}
    assert verify("bfcl", "[f(base=1)]", AREA).parts == {"called": 1.0, "right_function": 0.0}


def test_other_references_and_formats_are_refused():
    assert "'yaml'" in verify("bfcl", "", None, format="yaml").error
    for reference in ("f", {}, {"function": "f", "parameters": {}}, [1]):
        assert "reference" in verify("bfcl", "", reference).error


@pytest.mark.parametrize(
    ("parameters", "allowed", "named"),
    [
        ({}, {}, "'properties'"),
        ({"properties": {"a": {"type": "int"}}}, {}, "integer"),
        ({"properties": {"a": {"type": ["integer", "null"]}}}, {}, "integer"),
        ({"properties": {"a": {}}}, {}, "parameter a"),
        ({"properties": {"a": 1}}, {}, "parameter a"),
        ({"properties": {"a": {"type": "array", "items": {}}}}, {}, "'items'"),
        ({"properties": {"a": {"type": "array", "items": None}}}, {}, "'items'"),
        ({"properties": {}, "required": ["b"]}, {}, "'b'"),
        ({"properties": {}, "required": 1}, {}, "require 1"),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1}, "values of a"),
        ({"properties": {"a": {"type": "dict"}}}, {"a": [{"b": 1}]}, "values of a"),
        ({"properties": {"a": {"type": "array", "items": {"type": "dict"}}}}, {"a": [[{"b": 1}]]}, "values of a"),
    ],
)
def test_schemas_and_allowed_values_are_checked_where_a_file_is_loaded(tmp_path, parameters, allowed, named):
    reference = {"function": "f", "parameters": parameters, "allowed": allowed}
    (tmp_path / "mine.jsonl").write_text(json.dumps({"question": "?", "call": reference}))
    task = TaskConfig(file=str(tmp_path / "mine.jsonl"), prompt="question", reference="call", verifier="bfcl")
    with pytest.raises(ConfigError, match=rf"tasks\.mine: .*line 1.*{named}"):
        problems.make_task(Config(tasks={"mine": task}), "mine")


DIGITS, DEEP = "1" + "0" * 400, "[" * 9000
ODD = (
    *(DIGITS, f"-{DIGITS}", f"{DIGITS}+1j", f"1e400-{DIGITS}j", "0x" + "f" * 9000, f"[0x{'f' * 9000}]", "1" * 9000),
    *("1e999", "-1e999", "1j", "{[]: 1}", "{{}}", "{1: [2]}", "{1, 2}", "b'x'", "...", "*x", "lambda: 0", "f'{x!q}'"),
    *(DEEP, DEEP + "]" * 9000, "-" * 9000 + "1", "x" + ".y" * 9000, "x" + "[0]" * 6000, "'\\ud800'", "'\x00'", "\x00"),
)
KINDS = (("integer", [5]), ("float", [5.0, 6]), ("string", ["x"]), ("boolean", [True]), ("any", [None]),
         ("array", [[1], 5, ""]), ("tuple", [[1.5]]), ("dict", [{"k": [1]}, 5]), ("float", [""]))  # fmt: skip


OF_ITEMS = [case for case in KINDS if case[0] in ("array", "tuple", "dict")]


@pytest.mark.parametrize(
    ("kind", "allowed", "items"),
    [(*case, "") for case in KINDS]
    + [(*case, items) for case in OF_ITEMS for items in ("integer", "float", "dict", "array")],
)
def test_no_text_makes_it_raise(kind, allowed, items):
    schema = {"type": kind} | ({"items": {"type": items}} if items else {})
    reference = {"function": "f", "parameters": {"properties": {"a": schema}}, "allowed": {"a": allowed}}
    for text in ODD:
        numbers = [f'{{"k": {text}}}', f'[{{"k": {text}}}]', f"[{text}]", text, f'{{"k": [{text}]}}']
        for value in numbers:
            for completion, format in (
                (f"f(a={value})", "python"),
                (f'<tool_call>{{"name": "f", "arguments": {{"a": {value}}}}}</tool_call>', "json"),
            ):
                verdict = verify("bfcl", completion, reference, format=format)
                assert (verdict.score, verdict.error) == (0, None), completion[:100]


@pytest.mark.parametrize("format", ["python", "json"])
def test_the_first_allowed_values_of_every_problem_are_right(data_sets, prepared_dir, format):
    task = make_task("bfcl", {"format": format}, prepared_dir, data_sets)
    for split in ("train", "heldout"):
        for index in range(task.num_examples(split)):
            example = task.example(split, index)
            assert json.loads(json.dumps(example.reference)) == example.reference
            right = task.demonstration(example, 0)
            assert verify("bfcl", right, example.reference, **task.verifier_options).score == 1, example
            if example.reference is None:
                continue
            assert example.reference["function"] in example.prompt
            for wrong in ("No function fits.", right + right, right.replace(example.reference["function"], "other")):
                assert verify("bfcl", wrong, example.reference, **task.verifier_options).score == 0
            for name in example.reference["parameters"]["required"]:
                less = {**example.reference["allowed"]}
                arguments = {key: values[0] for key, values in less.items() if key != name}
                assert "missing" in wrong_arguments(arguments, example.reference["parameters"], less)


def test_the_splits_are_those_of_the_ids_and_options_are_checked(data_sets, prepared_dir):
    every = make_task("bfcl", {"heldout_share": 1.0}, prepared_dir, data_sets)
    part = make_task("bfcl", {}, prepared_dir, data_sets)
    assert every.num_examples("train") == 0
    assert part.num_examples("train") + part.num_examples("heldout") == every.num_examples("heldout")
    assert part.num_examples("train") > part.num_examples("heldout") > 0
    multiple = make_task("bfcl", {"categories": ["multiple"], "heldout_share": 1.0}, prepared_dir, data_sets)
    assert multiple.example("heldout", 0).prompt.count('{"name":') > 1
    for options, message in (
        ({"categories": "multiple"}, "simple_python"),
        ({"categories": ["parallel"]}, "simple_python"),
        ({"format": "xml"}, "python, json"),
        ({"heldout_share": 0}, "heldout_share"),
    ):
        with pytest.raises(ValueError, match=message):
            make_task("bfcl", options, prepared_dir, data_sets)


@pytest.mark.whole
def test_the_whole_data_set_has_the_published_counts(data_sets, prepared_dir):
    for category, count in (("simple_python", 400), ("multiple", 200), ("irrelevance", 240)):
        task = make_task("bfcl", {"categories": [category], "heldout_share": 1.0}, prepared_dir, data_sets)
        assert task.num_examples("heldout") == count
