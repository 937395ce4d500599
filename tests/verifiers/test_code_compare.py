"""Results and output of programs against what is expected."""

import pytest

from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.code_compare import matches, same_output
from tests.verifiers.test_code import STDIO, SUMS, _function


@pytest.mark.parametrize(
    ("result", "expected", "tolerance", "same"),
    [
        ((1, (2, 3)), [1, [2, 3]], 0.0, True),  # JSON has no tuples
        ([1, 2], [1, 2, 3], 0.0, False),
        ({1: [2]}, {"1": [2]}, 0.0, True),  # nor other keys than text
        ({1: 2, "1": 3}, {"1": 2}, 0.0, False),
        ({None: 1, True: 2}, {"null": 1, "true": 2}, 0.0, True),
        ({1, 2}, [1, 2], 0.0, False),
        ("ab", ["a", "b"], 0.0, False),
        (float("nan"), float("nan"), 0.0, True),
        (float("nan"), 1.0, 9.0, False),
        (1.0, float("nan"), 9.0, False),
        (0.1 + 0.2, 0.3, 0.0, False),
        (0.1 + 0.2, 0.3, 1e-9, True),
        ([3.0000001], [3], 1e-6, True),
        (4, 3, 5.0, False),  # integers are exact
        (float("inf"), 1.0, 1e9, False),
        (10**400, 1.0, 1e-6, False),
        (float("inf"), float("inf"), 0.0, True),
        ("3", 3, 0.0, False),
        (None, False, 0.0, False),
        (0.0, None, 1.0, False),
        (True, 1.0, 0.0, True),  # as Python has it
        (1 + 0j, 1.0, 0.0, True),
    ],
)
def test_results_match_what_json_can_write(result, expected, tolerance, same):
    assert matches(result, expected, tolerance) is same


def test_tolerance_is_an_option():
    reference = _function([([1, 10], 0.1), ([2, 3], [0.6666667])])
    program = "def f(a, b):\n    return a / b if a == 1 else (a / b,)\n"
    assert verify("code", program, reference).parts["passed"] == 0.5
    assert verify("code", program, reference, float_tolerance=1e-6).score == 1.0


@pytest.mark.parametrize(
    ("program", "score"),
    [
        (SUMS, 1.0),
        ("import sys\ndef main():\n    sys.stdin.readline()\n    for line in sys.stdin:\n        a, b = line.split()\n"
         "        sys.stdout.write(f'{int(a) + int(b)}\\r\\n')\nif __name__ == '__main__':\n    main()\n    exit()",
         1.0),
        ("import os\nn, *data = map(int, os.read(0, 1000).split())\nfor i in range(n):\n"
         "    os.write(1, b'%d\\n' % sum(data[2 * i:2 * i + 2]))\n", 1.0),
        (SUMS.replace("print(", "print(0.0 + "), 0.0),  # 3.0 is not 3
        (SUMS + "1 / 0\n", 0.0),
        (SUMS + "import sys; sys.exit(1)\n", 0.0),
        (SUMS + "print(5)\n", 0.0),
        (SUMS.replace("print(", "print(end=' ') or print("), 1.0),
        ("print(3)\nprint(7)\n", 0.0),
        ("import atexit\natexit.register(lambda: print('\\n'.join(out)))\nout = []\n"
         + SUMS.replace("print(", "out.append(str(").replace("))\n", ")))\n"), 1.0),
        ("print(3, 7)", 0.0),
        ("import sys, threading\ndef main():\n" + "".join(f"    {line}\n" for line in SUMS.splitlines())
         + "sys.setrecursionlimit(10**6)\nthreading.stack_size(1 << 26)\nt = threading.Thread(target=main)\n"
         "t.start()\nt.join()\n", 1.0),
        ("import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    return n and f(n - 1)\nf(50000)\n" + SUMS, 1.0),
    ],
)  # fmt: skip
def test_a_stdio_program_is_judged_by_the_words_of_its_lines(program, score):
    verdict = verify("code", program, STDIO)
    assert (verdict.score, verdict.error) == (score, None), verdict.reason


@pytest.mark.parametrize(
    ("printed", "expected", "tolerance", "same"),
    [
        ("0.50\n", "0.5", 0.0, False),
        ("0.50\n", "0.5", 1e-9, True),
        ("x = 0.3333 m\n2", "x = 0.33333 m\n2", 1e-4, True),
        ("x = 0.3333 m\n2", "x = 0.33333 m\n2", 1e-6, False),
        ("3", "3.0", 1e-9, True),
        ("1e3", "1000", 1e-9, True),
        ("4", "3", 9.0, False),  # integers are exact
        ("03", "3", 9.0, False),
        ("1.0 2.0", "1.0\n2.0", 1.0, False),
        ("1.0 2.0", "1.0", 1.0, False),
        ("1_0.0", "10.0", 1e-3, False),
        ("nan", "1.0", 9.0, False),
        ("1e999", "1.5", 9.0, False),
        ("nan inf", "nan inf", 1e-6, True),
        ("9" * 5000, "9" * 4999 + "8", 1e-6, False),
        ("9" * 5000, "1.0", 1e-6, False),
        ("1.0 one", "1.0 two", 9.0, False),
    ],
)
def test_printed_numbers_may_differ_by_the_tolerance(printed, expected, tolerance, same):
    assert same_output(printed, expected, tolerance) is same


def test_the_tolerance_acts_on_what_is_printed_and_is_refused_where_it_can_not_act():
    stdio = {"type": "stdio", "cases": [{"stdin": "2", "stdout": "0.70711"}]}
    program = "print(1 / float(input()) ** 0.5)"
    assert verify("code", program, stdio).score == 0.0
    assert verify("code", program, stdio, float_tolerance=1e-4).score == 1.0
    for reference in ({"type": "asserts", "tests": ["assert f() == 1"]}, {"type": "humaneval"}):
        assert "float_tolerance = 0.1" in verify("code", program, reference, float_tolerance=0.1).error
