"""Functions by their names, and what is wrong with a name: with file and line."""

import re
import sys
from collections.abc import Sequence
from typing import Literal

import pytest

from rlvr_jax import named


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_a_function_comes_from_a_module_or_a_file_and_its_module_runs_once(folder):
    assert named.load("json:dumps")([1]) == "[1]"
    assert named.load("collections:OrderedDict.fromkeys") is not None
    (folder / "taste_of_mine.py").write_text(
        "RUNS = []\nRUNS.append(1)\n\ndef sweet(x, y=2):\n    return x + y, len(RUNS)\n"
    )
    for name in ("taste_of_mine:sweet", "taste_of_mine.py:sweet", f"{folder}/taste_of_mine.py:sweet"):
        assert named.load(name)(1) == (3, 1)
        assert named.where(name) == f"{folder.resolve()}/taste_of_mine.py, line 4"
    (folder / "other").mkdir()
    (folder / "other" / "taste_of_mine.py").write_text("def sweet(x):\n    return -x\n")
    assert named.load("other/taste_of_mine.py:sweet")(1) == -1


def test_a_file_may_import_its_neighbours(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "neighbour_of_mine.py").write_text("VALUE = 7\n")
    (folder / "deep" / "asks.py").write_text(
        "import neighbour_of_mine\n\ndef f():\n    return neighbour_of_mine.VALUE\n"
    )
    assert named.load("deep/asks.py:f")() == 7


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("def f(:\n", "broken_a:f", r"broken_a\.py, line 1: .* can't be imported: SyntaxError"),
        ("x = 1\n\ny = 1 / 0\n", "broken_b.py:f", r"broken_b\.py, line 3: .* ZeroDivisionError"),
        ("import nowhere_at_all\n", "broken_c:f", r"broken_c\.py, line 1: .* No module named 'nowhere_at_all'"),
        ("raise SystemExit('no')\n", "broken_d:f", r"broken_d\.py, line 1: .* SystemExit: no"),
        ("def g(): ...\ndef h(): ...\n", "broken_e:f", r"broken_e\.py has no 'f'; its functions: g, h"),
        ("f = 3\n", "broken_f:f", r"'f' of .*broken_f\.py is int, not a function"),
        (None, "absent_module:f", "no module 'absent_module', and no file .*absent_module.py"),
        (None, "absent.py:f", r"no such file: /.*absent\.py"),
        (None, ":f", "not of the form 'module:function'"),
        (None, "module:", "not of the form 'module:function'"),
    ],
)
def test_a_name_that_leads_to_no_function_says_why_and_where(content, name, message, folder):
    if content is not None:
        (folder / f"{name.partition(':')[0].removesuffix('.py')}.py").write_text(content)
    with pytest.raises(ValueError, match=message):
        named.load(name)


def test_a_function_with_another_signature_is_named_with_file_and_line(folder):
    (folder / "signatures.py").write_text(
        "\ndef two(completion, reference, scale=1): ...\n\ndef one(completion): ...\n"
    )
    given = "completion", "reference"
    named.check_arguments("signatures:two", *given, scale=2)
    with pytest.raises(
        ValueError, match=r"signatures\.py, line 4: 'signatures:one' .*must take \(completion, reference\)"
    ):
        named.check_arguments("signatures:one", *given)
    with pytest.raises(ValueError, match=re.escape("line 2: 'signatures:two' takes (completion, reference, scale=1)")):
        named.check_arguments("signatures:two", *given, size=2)


def test_an_exception_is_placed_at_the_last_line_of_the_users_code(folder):
    (folder / "deep.py").write_text(
        "import json\n\ndef reads(text):\n    return json.loads(text)\n\ndef two(a, b): ...\n"
    )
    for name, arguments, line in (("deep:reads", ("{",), 4), ("deep:two", ("{",), 6)):
        function = named.load(name)
        try:
            function(*arguments)
        except (TypeError, ValueError) as error:
            error.__traceback__ = error.__traceback__.tb_next  # without this test's own line
            placed = named.raised_at(error, name)
        assert placed == f"{folder / 'deep.py'}, line {line}"


def made(count: int, share: float = 0.5, names: Sequence[str] = (), kind: Literal["a", "b"] = "a") -> None:
    """Takes options."""


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (5, "dictionary.*5"),
        ({}, "without the options count; it needs count"),
        ({"count": 1, "shares": 1}, "no option 'shares'; the options are count, share, names, kind"),
        ({"count": True}, "count .*True"),
        ({"count": 1.0}, "count .*1.0"),
        ({"count": 1, "share": "1"}, "share .*'1'"),
        ({"count": 1, "names": "ab"}, "names .*'ab'"),
        ({"count": 1, "names": [1]}, "names .*1"),
        ({"count": 1, "kind": "c"}, "kind .*a, b.*'c'"),
    ],
)
def test_options_that_a_function_does_not_take_are_named(options, why):
    with pytest.raises(ValueError, match=why):
        named.check_options(made, options, typed=True)
    named.check_options(made, {"count": 1, "share": 1, "names": ("a",), "kind": "b"}, typed=True)
    named.check_options(lambda *_, **__: None, {"anything": 1})
