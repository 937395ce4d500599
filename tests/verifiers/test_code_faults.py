"""Whose fault it is if nothing can be judged: the reference's, or the program's."""

import pytest

from rlvr_jax.verifiers import verify
from tests.verifiers.test_code import ADD, PROMPT, RIGHT, _function


@pytest.mark.parametrize(
    ("reference", "options", "error"),
    [
        (None, {}, "a mapping with a type: function, asserts, humaneval or stdio"),
        ({"type": "function", "entry_point": "f"}, {}, "of type function has entry_point and cases"),
        ({"type": "function", "entry_point": "f", "cases": []}, {}, "of type function has entry_point and cases"),
        ({"type": "function", "entry_point": "f", "cases": [{"args": 1, "expected": 1}]}, {}, "args (a list)"),
        ({"type": "asserts", "tests": []}, {}, "of type asserts has tests, a list of texts"),
        ({"type": "asserts", "tests": "assert f() == 1"}, {}, "of type asserts has tests, a list of texts"),
        ({"type": "humaneval", "prompt": "", "test": ""}, {}, "of type humaneval has prompt, entry_point and test"),
        ({"type": "stdio", "cases": [{"stdin": "1"}]}, {}, "of type stdio has cases, each with stdin and stdout"),
        (_function([([object()], 1)]), {}, "a value of type object is not plain data"),
        (ADD, {"score": "most"}, "score is 'all', 'share' or 'stage', not 'most'"),
        (ADD, {"cpu_seconds": 0.5}, "cpu_seconds must be a whole number from 1 to 3600, not 0.5"),
        (ADD, {"wall_seconds": 0}, "wall_seconds must be positive"),
        (ADD, {"memory_bytes": 1}, "memory_bytes must be at least 134217728, not 1"),
        (ADD, {"output_bytes": 0}, "output_bytes must be positive"),
        (ADD, {"engine": "docker"}, "there is no sandbox engine 'docker'"),
    ],
)
def test_a_bad_reference_or_option_is_told(reference, options, error):
    verdict = verify("code", RIGHT, reference, **options)
    assert verdict.score == 0.0
    assert error in verdict.error


def test_a_program_that_is_too_long_is_not_run():
    verdict = verify("code", RIGHT + "#" * 200_000, ADD)
    assert (verdict.score, verdict.reason, len(verdict.answer)) == (0.0, "longer than 200000 characters", 20_000)


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ({"setup": "import nothing_of_the_kind", "tests": ["assert add(1, 2) == 1 + 2"]}, "nothing_of_the_kind"),
        ({"tests": ["from nothing import x\nassert add(1, 2) == x", "assert add(0, 0) == 0 * 1"]}, "nothing"),
        ({"setup": "limit = 1 // 0", "tests": ["assert add(1, 2) == 3 + limit"]}, "ZeroDivisionError"),
        ({"setup": "sums = [0] * 10**11", "tests": ["assert add(1, 2) == sums[0]"]}, "MemoryError"),
        ({"setup": "import os\nos._exit(0)", "tests": ["assert add(1, 2) == 1 + 2"]}, "exit code 0"),
        ({"setup": "while True: pass", "tests": ["assert add(1, 2) == 1 + 2"]}, "more than 1 s of CPU time"),
        ({"tests": ["assert add(1, 2) == 1 + 2", "assert close(add(1, 2), 3)"]}, "close"),
        ({"tests": ["assert add(1, 2) == close(3)"], "entry_point": "add"}, "close"),
        ({"tests": ["assert add(1, 2) == 1 + 2", "total = undefined[0]"], "entry_point": ["add"]}, "undefined"),
        ({"tests": ["assert add(1, 2) == 1 + 2", "import math\nassert math.nothing == 2"]}, "nothing"),
        ({"tests": ["assert add(1, 2) == 1 + 2", "return 3"]}, "outside function"),
        ({"tests": ["assert add(1, 2) == 1 + 2", "assert add(iter([1]), 2) == 1 + 2"]}, "list_iterator"),
        ({"tests": ["x = 1 + 1\nassert x == 2"]}, "use nothing of the program"),
        ({"tests": ["assert add(1, 2) == = 3"]}, "test 1 is not Python"),
        ({"tests": ["assert add(1, 2) == 3"], "entry_point": 3}, "entry_point"),
    ],
)
def test_tests_that_cannot_run_are_the_references_fault(reference, error):
    verdict = verify("code", RIGHT, {"type": "asserts"} | reference, cpu_seconds=1)
    assert verdict.score == 0.0
    assert error in verdict.error


@pytest.mark.parametrize(
    ("test", "error"),
    [
        (
            "import nothing_of_the_kind\ndef check(candidate):\n    assert candidate(1) == [1 + 1]",
            "nothing_of_the_kind",
        ),
        ("def check(candidate):\n    assert candidate(1) == [2]\n    assert close(candidate(2), [3])", "close"),
        ("def check(candidate):\n    import nowhere\n    assert candidate(1) == [nowhere.two]", "nowhere"),
        ("def check(candidate):\n    inputs = [0] * 10**11\n    assert candidate(1) == [2]", "MemoryError"),
        ("def check(candidate):\n    two = one + 1\n    assert candidate(1) == [two]", "one"),
        ("def verify(candidate):\n    assert candidate(1) == [1 + 1]", "check"),
        ("def check(candidate)", "not Python"),
    ],
)
def test_so_are_those_of_a_check(test, error):
    reference = {"type": "humaneval", "prompt": PROMPT, "entry_point": "up", "test": test}
    verdict = verify("code", "    return [helper(n)]", reference)
    assert verdict.score == 0.0
    assert error in verdict.error


UNABLE = {"type": "asserts", "tests": ["assert add(1, 2) == 1 + 2", "assert close(add(1, 2), 3)"]}


@pytest.mark.parametrize(
    "program",
    [
        "def add(a, b):\n    return None\n",  # it fails what can be tested
        "def sub(a, b):\n    return None\n",
        "def add(a, b):\n    raise NameError(\"name 'close' is not defined\", name='close')\n",
        "def add(a, b):\n    raise ModuleNotFoundError('numpy', name='numpy')\n",
        "def add(a, b):\n    raise MemoryError\n",
        "def add(a, b):\n    import nothing_of_the_kind\n",
        "import nothing_of_the_kind\n",
        "import os\nos._exit(0)\n",
        "def add(a, b):\n    __import__('os')._exit(0)\n",
        "def add(a, b):\n    return [0] * (5 * 10**6)\n",
        "add = 3\n",
        "add = None\n",
        "add = [1] * 10**6\n",
        "class add:\n    def __init__(self, *a): raise ImportError(name='x')\n",
        "def add(a, b:\n",
        "import os\ndef add(a, b):\n    for fd in range(3, 20):\n        try: os.write(fd, b'\\0\\0\\0\\1{')\n"
        "        except OSError: pass\n",
    ],
)
def test_a_program_cannot_make_itself_unjudged(program):
    assert verify("code", program, UNABLE).error is None
    check = "def check(candidate):\n    assert candidate(1, 2) == 1 + 2\n    assert candidate(0, 2) == close(2)\n"
    humaneval = {"type": "humaneval", "prompt": "def add(a, b):\n", "entry_point": "add", "test": check}
    for reference in (ADD, UNABLE | {"tests": UNABLE["tests"][:1]}, humaneval):
        verdict = verify("code", "```python\n" + program + "```", reference)
        assert (verdict.score, verdict.error) == (0.0, None), verdict


def test_a_package_that_is_missing_is_told_before_anything_runs():
    verdict = verify("code", RIGHT, ADD, packages=["nothing_of_the_kind"])
    assert "nothing_of_the_kind" in verdict.error
    assert "numpy" in verify("code", RIGHT, ADD, packages="numpy").error
