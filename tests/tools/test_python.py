"""The Python interpreter as a tool: cells as in a notebook, their state, their limits."""

import pytest

from rlvr_jax.tools import CallError, make_tool
from rlvr_jax.tools.python import run

TOOL = make_tool("python", {"cpu_seconds": 1, "wall_seconds": 1.0, "output_bytes": 10_000})


def cell(code, *earlier):
    return run(code, **TOOL.options, earlier=[{"code": text} for text in earlier])


def test_a_cell_shows_what_it_prints_and_the_value_of_its_last_line():
    assert cell("print('a')\nx = 2\nx + 1") == "a\n3\n"
    assert cell("x = 1") == ""
    assert cell("None") == ""
    assert cell("'a\\n'") == "'a\\n'\n"
    assert cell("print(__name__)\nraise SystemExit(0)\nprint(1)") == "__main__\n"
    assert cell("") == ""


def test_earlier_cells_leave_their_names_and_are_silent():
    before = (
        "import math\nprint('once')\nxs = [1]",
        "xs.append(2)\n1/0\nxs.append(9)",
        "def f(x):\n    return x + len(xs)",
    )
    assert cell("f(math.floor(3.5)), xs", *before) == "(5, [1, 2])\n"
    with pytest.raises(CallError, match="NameError: name 'xs'"):
        cell("xs")


@pytest.mark.parametrize(
    ("code", "outcome", "told"),
    [
        (
            "print('first')\n\ndef f():\n    1 / 0\n\nf()",
            "raised",
            'first\nTraceback.*cell 1", line 6.*ZeroDivisionError',
        ),
        ("1 +", "raised", "SyntaxError: invalid syntax"),
        ("while True:\n    pass", "timed_out", "1 s of CPU time"),
        ("import time\nprint('a', flush=True)\ntime.sleep(99)", "timed_out", "a\n.*1 s"),
        ("x = bytearray(1 << 40)", "out_of_memory", "MemoryError"),
        ("print('x' * 20_000)", "flood", "more than 10000 bytes"),
        ("import sys\nsys.stdout.buffer.write(bytes(range(256)))", "binary", "no text"),
        ("import os\nos._exit(5)", "died", "exit code 5"),
        ("import os\nos._exit(3)", "died", "exit code 3"),
        ("import sys\nsys.exit('bad')", "raised", "SystemExit: bad"),
        ("open('/etc/passwd')", "raised", "Error"),
        ("x = '\ud800'", "raised", "UnicodeEncodeError"),
    ],
)
def test_a_cell_that_fails_says_so(code, outcome, told):
    with pytest.raises(CallError, match=f"(?s){told}") as failure:
        cell(code)
    assert failure.value.outcome == outcome
    assert "cell 1" in str(failure.value) or "Traceback" not in str(failure.value)


def test_its_cells_are_bounded_and_the_pool_waits_for_that_bound():
    assert TOOL.timeout > 120
    assert "state" not in TOOL.options
    assert not make_tool("python", {"state": False}).state
