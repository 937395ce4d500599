import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.code_cases import from_asserts, from_check
from rlvr_jax.verifiers.code_compare import matches, same_output
from rlvr_jax.verifiers.code_text import completed, program_of
from rlvr_jax.verifiers.pool import Job, Pool

ADD = {
    "type": "function",
    "entry_point": "add",
    "cases": [{"args": [1, 2], "expected": 3}, {"args": [0, 0], "expected": 0}, {"args": [2, 2], "expected": 4}],
}
RIGHT = "def add(a, b):\n    return a + b\n"
ROOT = Path(__file__).parents[2]


def _function(cases, name="f"):
    return {"type": "function", "entry_point": name, "cases": [{"args": a, "expected": e} for a, e in cases]}


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_canonical_solution_of_humaneval_and_mbpp_passes(data_sets):
    humaneval, mbpp = _rows(data_sets / "humaneval/HumanEval.jsonl"), _rows(data_sets / "mbpp/mbpp.jsonl")
    tasks = len(humaneval)
    jobs = [
        Job(
            "code",
            row["canonical_solution"],
            {"type": "humaneval"} | {k: row[k] for k in ("prompt", "entry_point", "test")},
        )
        for row in humaneval
    ] + [
        Job("code", row["code"], {"type": "asserts", "setup": row["test_setup_code"], "tests": row["test_list"]})
        for row in mbpp
    ]
    with Pool(2, timeout=120.0) as pool:
        verdicts = pool.judge(jobs)
    names = [row["task_id"] for row in humaneval + mbpp]
    assert [(name, v.reason, v.error) for name, v in zip(names, verdicts, strict=True) if v.score != 1.0] == []
    # And not because anything passes: the solution of the next problem does not.
    sample = range(tasks, len(jobs) - 1, len(mbpp) // 20)
    shifted = [Job("code", jobs[i + 1].completion, jobs[i].reference) for i in sample]
    with Pool(2, timeout=120.0) as pool:
        assert [v.score for v in pool.judge(shifted)] == [0.0] * len(shifted)


def calls(data_sets):
    """The share of problems of HumanEval, and of MBPP, whose tests are calls with literals."""
    humaneval, mbpp = _rows(data_sets / "humaneval/HumanEval.jsonl"), _rows(data_sets / "mbpp/mbpp.jsonl")
    in_humaneval = sum(from_check(row["test"]) is not None for row in humaneval)
    in_mbpp = sum(from_asserts(row["test_setup_code"], row["test_list"]) is not None for row in mbpp)
    return in_humaneval / len(humaneval), in_mbpp / len(mbpp)


def test_most_tests_of_the_data_sets_are_calls_with_literals(data_sets):
    in_humaneval, in_mbpp = calls(data_sets)
    assert 0.85 < in_humaneval < 1
    assert 0.95 < in_mbpp < 1


@pytest.mark.whole
def test_as_many_tests_as_before_are_calls_with_literals(data_sets):
    in_humaneval, in_mbpp = calls(data_sets)
    assert in_humaneval >= 146 / 164
    assert in_mbpp >= 967 / 974


def test_the_score_is_all_or_nothing_or_the_share():
    program = "def add(a, b):\n    return a + b if a else 1 / a\n"
    verdict = verify("code", program, ADD)
    assert (verdict.score, verdict.parts, verdict.answer) == (0.0, {"passed": 2 / 3, "format": 1.0}, program)
    assert verdict.reason == (
        "2 of 3 tests pass; add(0, 0), which should give 0: raised ZeroDivisionError: division by zero"
    )
    assert verify("code", program, ADD, score="share").score == 2 / 3
    assert verify("code", RIGHT, ADD).score == verify("code", RIGHT, ADD, score="share").score == 1.0


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def add(a, b):\n    return [a, b]\n", "add(1, 2), which should give 3: gave [1, 2]"),
        ("def sub(a, b):\n    return 0\n", "the program does not define add"),
        ("def add(a):\n    return 0\n", "raised TypeError: add() takes 1 positional argument but 2 were given"),
        ("def add(a, b):\n    while True: pass\n", "timed out: more than 1 s of CPU time"),
        ("import time\ndef add(a, b):\n    time.sleep(99)\n", "timed out: waited for more than 0.5 s"),
        ("def add(a, b):\n    return bytearray(1 << 40)\n", "raised MemoryError"),
        ("import os\ndef add(a, b):\n    os._exit(7)\n", "its process ended early (exit code 7)"),
        ("import numpy\n", "the program does not load: ModuleNotFoundError: No module named 'numpy'"),
        ("def add(a, b):\n    return object()\n", "gave an object of type object"),
        ("def add(a, b):\n    raise ValueError(object())\n", "raised ValueError: <object object at 0x…>"),
    ],
)
def test_the_reason_tells_the_first_failing_test_and_why(program, reason):
    verdict = verify("code", program, ADD, cpu_seconds=1, wall_seconds=0.5)
    assert (verdict.score, verdict.error, verdict.parts) == (0.0, None, {"passed": 0.0, "format": 1.0})
    assert reason in verdict.reason


@pytest.mark.parametrize("text", ["def add(a, b:\n", "I would add them.", "def add(a, b):\nreturn 1", "x = '\0'", " "])
def test_what_is_not_python_has_no_format(text):
    stdio = {"type": "stdio", "cases": [{"stdin": "", "stdout": "3"}]}
    for reference in (ADD, stdio) if text != "x = '\0'" else ():
        verdict = verify("code", text, reference)
        assert (verdict.score, verdict.parts) == (0.0, {"passed": 0.0, "format": 0.0}), verdict.reason


FENCED = "```python\n" + RIGHT + "```"


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        (RIGHT, RIGHT),
        (f"Here:\n\n{FENCED}\n\nIt adds.", RIGHT),
        (f"```python\nx = 1\n```\nBetter:\n{FENCED}", RIGHT),
        (f"{FENCED}\nRun it:\n```bash\npython add.py\n```\n", RIGHT),
        (f"{FENCED}\nOutput:\n```\n3\n```\n", RIGHT),
        (f"```\n{RIGHT}```", RIGHT),
        (f"~~~py\n{RIGHT}~~~", RIGHT),
        (f"````Python3 title=add\n{RIGHT}````", RIGHT),
        (f"```python\n{RIGHT}", RIGHT + "\n"),  # cut off
        ("```python\ns = '''\n~~~\n'''\n```", "s = '''\n~~~\n'''\n"),
        ("```bash\nls\n```", ""),
        ("```python\n```", ""),
        (" \n", ""),
        (f"```python\r\n{RIGHT}```", RIGHT),
        (f"1. Add:\n\n   ```python\n{textwrap.indent(RIGHT, '   ')}   ```\n2. Done.", RIGHT),
        (f"- Add:\n    ```py\n{textwrap.indent(RIGHT, '    ')}    ```", RIGHT),
        (f"10) a\n    - b\n\n      ~~~python\n{textwrap.indent(RIGHT, '      ')}      ~~~\n", RIGHT),
        (f"> Add:\n> ```python\n{textwrap.indent(RIGHT, '> ')}> ```\nThat is all.", RIGHT),
        (f"> - > ```python\n{textwrap.indent(RIGHT, '>   > ')}", RIGHT),
        (f"- Add:\n  ```python\n{RIGHT}  ```", RIGHT.replace("    ", "  ")),
        (f"    ```python\n{textwrap.indent(RIGHT, '    ')}    ```", RIGHT),
        (f"<answer>\n```python\n{RIGHT}```\n</answer>", RIGHT),
        (f"<div>\n- x\n</div>\n{FENCED}", RIGHT),
        (f"- ```python\n  x = 1\n  ```\n{FENCED}\n- ```\n  3\n  ```", RIGHT),
        (f"{FENCED}\n```python\n```", RIGHT),
        (f"* ```\n{textwrap.indent(RIGHT, '  ')}  ```", RIGHT),
        (
            '```python\ndef f():\n    """\n    ```\n    f()\n    ```\n    """\n```',
            'def f():\n    """\n    ```\n    f()\n    ```\n    """',
        ),
    ],
)
def test_the_program_is_the_last_python_block(completion, program):
    assert program_of(completion).rstrip("\n") == program.rstrip("\n")


@settings(max_examples=200)
@given(st.text(st.sampled_from("`~ \nabpython"), max_size=60))
def test_finding_the_program_never_fails(text):
    assert program_of(text) in (*[text[i:] for i in range(len(text) + 1)], program_of(text))
    assert len(program_of(text)) <= len(text)


PROMPT = (
    'from typing import List\n\ndef helper(n):\n    return n + 1\n\n\ndef up(n: int) -> List[int]:\n    """Up."""\n'
)


@pytest.mark.parametrize(
    "text",
    [
        "    return [helper(n)]\n",
        "\n    m = helper(n)\n    return [m]\n",
        "return [helper(n)]",
        "m = helper(n)\n    return [m]\n",
        "m = helper(n)\nif n:\n    return [m]\n",
        "for m in [helper(n)]:\n    return [m]\n",
        "    return [inner(n)]\n\n\ndef inner(n):\n    return helper(n)\n",
        PROMPT + "    return [helper(n)]\n",
        "def up(n: int) -> List[int]:\n    return [helper(n)]\n",
        "import math\n\n\ndef up(n):\n    return [math.floor(helper(n))]\n",
        "up = lambda n: [helper(n)]\n",
        "```python\ndef up(n):\n    return [helper(n)]\n```",
        "```python\n    return [helper(n)]\n```",
    ],
)
def test_a_humaneval_completion_is_the_body_or_the_whole_function(text):
    check = "def check(candidate):\n    assert candidate(1) == [2]\n    assert candidate(-1) == [0]\n"
    reference = {"type": "humaneval", "prompt": PROMPT, "entry_point": "up", "test": check}
    assert verify("code", text, reference).reason == "2 of 2 tests pass"
    assert "def helper" in completed(PROMPT, "up", program_of(text))


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


def test_the_function_may_be_a_method_of_a_class_solution():
    program = (
        "class Solution:\n    n = 0\n    def add(self, a, b):\n        self.n += 1\n        return a + b * self.n\n"
    )
    assert verify("code", program, ADD).score == 1.0
    asserts = {"type": "asserts", "tests": ["assert [add(1, 2)] == [3]", "assert add(1, 2) == 3"]}
    assert verify("code", program.replace("self.n", "1").replace("1 += 1", "pass"), asserts).score == 1.0
    assert "does not define add" in verify("code", program.replace("def add", "def sub"), ADD).reason


def test_tolerance_is_an_option():
    reference = _function([([1, 10], 0.1), ([2, 3], [0.6666667])])
    program = "def f(a, b):\n    return a / b if a == 1 else (a / b,)\n"
    assert verify("code", program, reference).parts["passed"] == 0.5
    assert verify("code", program, reference, float_tolerance=1e-6).score == 1.0


STDIO = {
    "type": "stdio",
    "cases": [{"stdin": "2\n1 2\n3 4\n", "stdout": "3\n7\n"}, {"stdin": "1\n-1 1", "stdout": "0"}],
}
SUMS = "for _ in range(int(input())):\n    print(sum(map(int, input().split())))\n"


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


TOGETHER = {
    "executor": "from concurrent.futures import ThreadPoolExecutor, as_completed\n"
    "with ThreadPoolExecutor(max_workers=4) as pool:\n    print(sum(pool.map(pow, range(4), [2] * 4)))\n"
    "    futures = [pool.submit(divmod, 7, n) for n in (0, 2)]\n"
    "    print(type(futures[0].exception()).__name__, futures[1].result(), len(list(as_completed(futures))))\n"
    "try: pool.submit(len, '')\nexcept RuntimeError: print('shut')",
    "asyncio": "import asyncio\nasync def half(n):\n    await asyncio.sleep(0.001 * n)\n    return n / 2\n"
    "async def main():\n    queue = asyncio.Queue()\n    await queue.put(await asyncio.to_thread(sum, [1, 2]))\n"
    "    return [*await asyncio.gather(half(3), half(2)), await queue.get()]\n"
    "print(asyncio.run(main()))\nprint(asyncio.run(half(1)))",
    "threads": "import threading, queue\nq, done = queue.Queue(), threading.Event()\n"
    "class Worker(threading.Thread):\n    def run(self): q.put(7)\nw = Worker()\nw.start()\nw.join()\n"
    "t = threading.Timer(0.001, done.set)\nt.start()\nwith threading.Lock():\n    print(q.get(), done.wait())",
    "long": "print(7 ** 6000)\nn = int('9' * 5000)\nprint(len(str(n * n)))",
}


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        (TOGETHER["executor"], "14\nZeroDivisionError (3, 1) 2\nshut"),
        (TOGETHER["asyncio"], "[1.5, 1.0, 3]\n0.5"),
        (TOGETHER["threads"], "7 True"),
        (TOGETHER["long"], None),
    ],
)
def test_executors_event_loops_and_long_integers_work(program, printed):
    if printed is None:
        limit = sys.get_int_max_str_digits()
        sys.set_int_max_str_digits(0)
        printed = f"{7**6000}\n10000"
        sys.set_int_max_str_digits(limit)
    for engine in ("namespaces", "landlock"):
        reference = {"type": "stdio", "cases": [{"stdin": "", "stdout": printed}]}
        verdict = verify("code", program, reference, engine=engine)
        assert (verdict.score, verdict.error) == (1.0, None), verdict.reason


@pytest.mark.parametrize(
    "program",
    [
        "import threading\nthreading.Thread(target=print, daemon=True).start()",
        "import queue, threading\nq = queue.Queue()\nthreading.Thread(target=q.get).start()",
        "import queue\nqueue.Queue().get()",
        "import threading\nthreading.Barrier(2).wait()",
    ],
)
def test_what_would_have_to_run_side_by_side_says_so(program):
    reference = {"type": "stdio", "cases": [{"stdin": "", "stdout": "3"}]}
    verdict = verify("code", program + "\n1 / 0", reference)
    assert verdict.score == 0.0
    assert "side by side" in verdict.reason or "ZeroDivisionError" in verdict.reason
    assert "timed out" not in verdict.reason


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


def test_after_a_time_out_no_further_case_runs():
    verdict = verify("code", "while True: pass", STDIO, cpu_seconds=1)
    assert verdict.reason == "0 of 2 tests pass; test 1: timed out: more than 1 s of CPU time"


def test_verdicts_do_not_depend_on_order_pool_size_hash_seed_or_locale():
    programs = [
        RIGHT,
        "def add(a, b):\n    return {'x', 'y', str(a)}\n",
        "import random\ndef add(a, b):\n    return random.random()\n",
        "import time, os\ndef add(a, b):\n    return time.tzname, sorted(os.environ.items()), hash('a'), f'{a:n}'\n",
        "def add(a, b):\n    raise KeyError({'a', 'b', 'c'})\n",
        "def add(a, b):\n    return add\n",
        "x = 1 +",
    ]
    jobs = [Job("code", program, ADD) for program in programs] * 3
    with Pool(2, timeout=60.0) as pool:
        expected = pool.judge(jobs[:7])
        assert pool.judge(jobs) == expected * 3
        assert pool.judge(jobs[::-1]) == expected[::-1] * 3
    with Pool(0) as here:
        assert here.judge(jobs[:7]) == expected
    script = (
        "import json, sys\nfrom rlvr_jax.verifiers import verify\n"
        "print(json.dumps([verify('code', p, json.loads(sys.argv[1])).reason for p in json.loads(sys.argv[2])]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "LC_ALL": "C", "TZ": "Asia/Tokyo", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script, json.dumps(ADD), json.dumps(programs)]
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(elsewhere.stdout) == [v.reason for v in expected]


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
        (ADD, {"score": "most"}, "score is 'all' or 'share', not 'most'"),
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


@pytest.mark.parametrize("form", ["function", "literal", "asserts", "humaneval"])
def test_long_values_are_judged(form):
    """Over 200,000 items, over 1 MiB: as arguments, as results, and as both."""
    program = "def f(n, items=(), text=''):\n    return [len(items), len(text)] if items else list(range(n))\n"
    count, text = 210_000, "x" * (2 << 20)
    references = {
        "function": _function([((count,), list(range(count))), ((0, list(range(count)), text), [count, len(text)])]),
        "literal": {"type": "asserts", "tests": [f"assert f({count}) == {list(range(count))}", "assert f(3)"]},
        "asserts": {
            "type": "asserts",
            "tests": [
                f"assert f({count}) == list(range({count}))",
                f"assert f(0, list(range({count})), 'x' * {len(text)}) == [{count}, {len(text)}]",
                f"assert f(0, f({count})) == [{count}, 0]",
            ],
        },
        "humaneval": {
            "type": "humaneval",
            "prompt": "def f(n, items=(), text=''):\n",
            "entry_point": "f",
            "test": f"def check(candidate):\n    for n in ({count}, 5):\n        assert len(candidate(n)) == n\n",
        },
    }
    assert verify("code", program, references[form], cpu_seconds=20).reason == (
        f"{(n := {'function': 2, 'literal': 2, 'asserts': 3, 'humaneval': 2}[form])} of {n} tests pass"
    )
    wrong = program.replace("range(n)", "range(n - 1)")
    assert verify("code", wrong, references[form], cpu_seconds=20).score == 0.0


NUMPY = {
    "function": _function([([2], [[1.0, 0.0], [0.0, 1.0]]), ([0], [])]),
    "asserts": {
        "type": "asserts",
        "setup": "import numpy as np",
        "tests": [
            "assert np.allclose(f(2), np.eye(2)) and f(3).shape == (3, 3) and type(f(2)) is np.ndarray",
            "assert int(trace(np.eye(3))) == 3 and trace(np.arange(4).reshape(2, 2)) == 3",
            "x = np.zeros(3)\nfill(x)\nassert (x == [7, 7, 7]).all()",
        ],
    },
    "humaneval": {
        "type": "humaneval",
        "prompt": "import numpy as np\n\ndef f(n):\n",
        "entry_point": "f",
        "test": "import numpy as np\n\ndef same(a, b):\n    assert np.allclose(a, b, atol=1e-6)\n\n"
        "def check(candidate):\n    for n in (1, 2):\n        same(candidate(n), np.eye(n))\n",
    },
    "stdio": {"type": "stdio", "cases": [{"stdin": "2", "stdout": "2.0"}]},
}
USES_NUMPY = (
    "import numpy as np\ndef f(n):\n    return np.eye(n)\ndef trace(x):\n    return np.trace(x).astype(int)\n"
    "def fill(x):\n    x[:] = 7\nif __name__ == '__main__':\n    print(np.trace(f(int(input()))))\n"
)


@pytest.mark.parametrize("kind", NUMPY)
def test_programs_and_tests_may_use_packages_by_option(kind):
    verdict = verify("code", USES_NUMPY, NUMPY[kind], packages=["numpy"])
    assert (verdict.score, verdict.error) == (1.0, None), verdict
    wrong = USES_NUMPY.replace("np.eye(n)", "np.ones((n, n)) * 3").replace("astype(int)", "astype(str)")
    assert verify("code", wrong, NUMPY[kind], packages=["numpy"]).score == 0.0
    verdict = verify("code", USES_NUMPY, NUMPY[kind])
    assert "No module named 'numpy'" in (verdict.reason if kind in ("function", "stdio") else verdict.error)


def test_a_package_that_is_missing_is_told_before_anything_runs():
    verdict = verify("code", RIGHT, ADD, packages=["nothing_of_the_kind"])
    assert "nothing_of_the_kind" in verdict.error
    assert "numpy" in verify("code", RIGHT, ADD, packages="numpy").error


def test_the_limit_of_a_pool_leaves_a_program_the_cpu_time_that_it_may_use():
    busy = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass\n"
    jobs = [Job("code", program, ADD, {"cpu_seconds": 2}) for program in (busy + RIGHT, RIGHT, "while True: pass\n")]
    jobs += [Job("code", busy + SUMS, STDIO), Job("code", RIGHT, ADD, {"cpu_seconds": "two"})]
    with Pool(1, timeout=0.05) as pool:
        verdicts = pool.judge(jobs)
    assert [v.score for v in verdicts] == [1.0, 1.0, 0.0, 1.0, 0.0]
    assert [v.error for v in verdicts[:4]] == [None] * 4
    assert "more than 2 s of CPU time" in verdicts[2].reason
    assert "cpu_seconds" in verdicts[4].error
