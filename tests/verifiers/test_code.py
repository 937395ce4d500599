import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.code_cases import from_asserts, from_check
from rlvr_jax.verifiers.pool import Job, Pool

ADD = {
    "type": "function",
    "entry_point": "add",
    "cases": [{"args": [1, 2], "expected": 3}, {"args": [0, 0], "expected": 0}, {"args": [2, 2], "expected": 4}],
}
RUNS = {"format": 1.0, "runs": 1.0, "stage": 2 / 3}
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
    assert (verdict.score, verdict.parts, verdict.answer) == (0.0, {"passed": 2 / 3} | RUNS, program)
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
    assert (verdict.score, verdict.error) == (0.0, None)
    assert {"passed": 0.0, "format": 1.0}.items() <= verdict.parts.items()
    assert reason in verdict.reason


PROMPT = (
    'from typing import List\n\ndef helper(n):\n    return n + 1\n\n\ndef up(n: int) -> List[int]:\n    """Up."""\n'
)


def test_the_function_may_be_a_method_of_a_class_solution():
    program = (
        "class Solution:\n    n = 0\n    def add(self, a, b):\n        self.n += 1\n        return a + b * self.n\n"
    )
    assert verify("code", program, ADD).score == 1.0
    asserts = {"type": "asserts", "tests": ["assert [add(1, 2)] == [3]", "assert add(1, 2) == 3"]}
    assert verify("code", program.replace("self.n", "1").replace("1 += 1", "pass"), asserts).score == 1.0
    assert "does not define add" in verify("code", program.replace("def add", "def sub"), ADD).reason


STDIO = {
    "type": "stdio",
    "cases": [{"stdin": "2\n1 2\n3 4\n", "stdout": "3\n7\n"}, {"stdin": "1\n-1 1", "stdout": "0"}],
}
SUMS = "for _ in range(int(input())):\n    print(sum(map(int, input().split())))\n"


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
    "program",
    [
        "import multiprocessing\nmultiprocessing.Process(target=print).start()",
        "import multiprocessing\nwith multiprocessing.Pool(2) as pool: pool.map(abs, [1])",
        "import multiprocessing\nmultiprocessing.Pipe()",
        "import multiprocessing\nmultiprocessing.Queue().put(1)",
        "import multiprocessing\nmultiprocessing.Manager()",
        "from concurrent.futures import ProcessPoolExecutor\nProcessPoolExecutor().submit(abs, 1).result()",
        "import subprocess\nsubprocess.run(['true'])",
        "import os\nos.system('true')",
        "import os\nos.popen('true')",
        "import os\nos.fork()",
    ],
)
@pytest.mark.parametrize("engine", ["namespaces", "landlock"])
def test_what_needs_another_process_says_that_there_is_none(program, engine):
    reference = {"type": "stdio", "cases": [{"stdin": "", "stdout": "3"}]}
    verdict = verify("code", program, reference, engine=engine)
    assert (verdict.score, verdict.error) == (0.0, None)
    assert "the sandbox has one process" in verdict.reason


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


def test_the_limit_of_a_pool_leaves_a_program_the_cpu_time_that_it_may_use():
    busy = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\n"
    jobs = [Job("code", program, ADD, {"cpu_seconds": 1}) for program in (busy + RIGHT, RIGHT, "while True: pass\n")]
    jobs += [Job("code", busy + SUMS, STDIO), Job("code", RIGHT, ADD, {"cpu_seconds": "two"})]
    with Pool(1, timeout=0.05) as pool:
        verdicts = pool.judge(jobs)
    assert [v.score for v in verdicts] == [1.0, 1.0, 0.0, 1.0, 0.0]
    assert [v.error for v in verdicts[:4]] == [None] * 4
    assert "more than 1 s of CPU time" in verdicts[2].reason
    assert "cpu_seconds" in verdicts[4].error
