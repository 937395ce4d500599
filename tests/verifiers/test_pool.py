import functools
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from rlvr_jax.verifiers import INSTANT, VERIFIERS, guarded
from rlvr_jax.verifiers.jobs import order_of
from rlvr_jax.verifiers.pool import MIN_MEMORY_BYTES, Job, Pool
from rlvr_jax.verifiers.processes import Worker
from rlvr_jax.verifiers.verdict import Verdict
from tests.processes import is_alive
from tests.verifiers import misbehaving
from tests.verifiers.hostile import HOSTILE

ROOT = Path(__file__).parents[2]
PATIENT = 60.0  # seconds for items that are expected to end by themselves, on a machine however busy
MODSUM = "rlvr_jax.verifiers.modsum:verify"  # by name it goes to a process; the kind "modsum" needs none
REFERENCES = {"modsum": "8", "countdown": {"numbers": [3, 5], "target": 8}, "gsm8k": "8"}


def sums(count):
    """Jobs of which every third is wrong, and their scores."""
    jobs = [Job(MODSUM, f"{'4' * (i % 5)}#{7 if i % 3 else 6}", "7") for i in range(count)]
    return jobs, [float(i % 3 != 0) for i in range(count)]


@pytest.mark.parametrize("kind", sorted(INSTANT))
def test_kinds_that_take_no_time_are_judged_at_once_but_for_very_long_completions(kind, monkeypatch):
    threads = []
    verify = VERIFIERS[kind]
    monkeypatch.setitem(VERIFIERS, kind, lambda *x, **y: threads.append(threading.current_thread()) or verify(*x, **y))
    references = {
        "modsum": "7",
        "key_value": {"answer": "gj"},
        "grid_world": {"size": 3, "start": [0, 0], "goal": [2, 2], "walls": []},
        "nim": {"position": "14"},
        "tic_tac_toe": {"position": "x.o......"},
        "papers": {"papers": ["C16-1130"]},
    }
    with Pool(1, timeout=PATIENT) as pool:
        for piece in (
            "7",
            "#7",
            "\n",
            "#gj\n",
            "up\n",
            "first 1",
            "1",
            "<answer>",
            "<answer></answer>",
            "<think>",
            "a,",
        ):
            (future,) = pool.submit([Job(kind, piece * ((1 << 16) // len(piece)), references[kind])])
            assert future.result(0).error is None
            assert threads.pop() is threading.current_thread()
        (longer,) = pool.submit([Job(kind, "7" * (1 + (1 << 16)), references[kind])])
        assert longer.result(PATIENT).error is None
    assert not threads


def wait_until_dead(process_ids):
    deadline = time.monotonic() + PATIENT
    while alive := [process_id for process_id in process_ids if is_alive(process_id)]:
        assert time.monotonic() < deadline, f"still alive: {alive}"
        time.sleep(0.02)


def process_ids(pool):
    """Of the workers that judge; asks until every worker has had its turn."""
    found = set()
    while len(found) < len(pool.process_ids):
        found |= {int(verdict.answer) for verdict in pool.judge([Job(misbehaving.process_id, "", None)] * 8)}
    return found


@pytest.fixture(scope="module")
def pool():
    """One pool for the tests that do not look at its processes: it must survive all of them."""
    with Pool(2, timeout=PATIENT) as pool:
        yield pool


@pytest.mark.parametrize("count", [0, 1, 2, 3, 31, 128, 1000])
def test_verdicts_come_in_the_order_of_the_jobs(pool, count):
    jobs = [Job(misbehaving.echo, f"item {i}", i) for i in range(count)]
    assert [verdict.answer for verdict in pool.judge(jobs)] == [job.completion for job in jobs]


def test_verdicts_are_equal_with_no_one_and_two_workers(pool):
    jobs, scores = sums(40)
    jobs += [Job(kind, completion, REFERENCES[kind]) for kind in REFERENCES for completion in HOSTILE.values()]
    jobs += [Job("gsm8k", "#### 7.0", "7"), Job("countdown", "3+5 = 8", REFERENCES["countdown"]), Job("modsum", 7, "7")]
    jobs += [Job(misbehaving.returns_what_it_is_told, what, None) for what in ("nan", "none", "no such case")]
    jobs += [Job(misbehaving.raises, "", None), Job(misbehaving.echo, "a", {"b": (1, 2)}, {"tolerance": 3})]
    with Pool(0) as here, Pool(1, timeout=PATIENT) as one:
        expected = here.judge(jobs)
        assert one.judge(jobs) == expected
        assert pool.judge(jobs) == expected
    assert [verdict.score for verdict in expected[:40]] == scores


def test_hostile_completions_take_less_than_a_second_of_cpu_each(pool):
    jobs = [
        Job(misbehaving.within_one_second_of_cpu, completion, REFERENCES[kind], {"kind": kind})
        for kind in REFERENCES
        for completion in HOSTILE.values()
    ]
    assert [(v.score, v.error) for v in pool.judge(jobs)] == [(0.0, None)] * len(jobs)


@pytest.mark.parametrize("completion", ["\ud800 and \udfff", "\0", "\U0001f600" * 10, "é" * 3_000_000, b"\xff#1", ""])
def test_any_text_passes_through_unchanged(pool, completion):
    expected = guarded(misbehaving.echo, completion, None, {})
    assert pool.judge([Job(misbehaving.echo, completion, None)] * 3) == [expected] * 3


def test_a_completion_too_large_for_a_worker_gets_an_error_verdict_and_the_others_are_judged():
    jobs, scores = sums(5)
    with Pool(1, timeout=PATIENT, memory_bytes=MIN_MEMORY_BYTES) as pool:
        verdicts = pool.judge([Job(MODSUM, "7" * (MIN_MEMORY_BYTES // 8), "7"), *jobs])
        largest = pool.judge([Job(MODSUM, "7" * (MIN_MEMORY_BYTES // 9) + "#7", "7")])
    assert "bytes; a worker takes up to" in verdicts[0].error
    assert [verdict.score for verdict in verdicts[1:]] == scores
    assert largest[0].score == 1.0


FAILS = {
    misbehaving.raises: r"KeyError: 'what a pity' \(.*misbehaving\.py, line \d+\)",
    misbehaving.raises_unprintable: r"Unprintable \(.*misbehaving\.py, line \d+\)",
    misbehaving.exits: r"SystemExit: good bye \(.*misbehaving\.py, line \d+\)",
    misbehaving.dies_of_signal: r"worker process died \(signal 9\)",
    misbehaving.dies_with_exit_code: r"worker process died \(exit code 7\)",
    misbehaving.closes_every_file: r"worker process died \(signal 9\)",
    misbehaving.wants_memory: f"MemoryError: more than {1 << 30} bytes needed in all",
}


def test_a_verifier_that_fails_costs_its_own_item_and_no_other(pool):
    """One of each kind: the first and the last of the batch, and some behind each other."""
    jobs, scores = sums(60)
    bad = dict(zip((0, 7, 8, 9, 57, 58, 59), FAILS, strict=True))
    for index, verifier in bad.items():
        jobs[index] = Job(verifier, "7", None)
        scores[index] = 0.0
    verdicts = pool.judge(jobs)
    assert [verdict.score for verdict in verdicts] == scores
    for index, verifier in bad.items():
        assert re.fullmatch(FAILS[verifier], verdicts[index].error), (verifier, verdicts[index])
    assert {index for index in range(60) if verdicts[index].error} == {*bad}


def test_a_verifier_that_hangs_times_out_and_costs_no_other_item(pool):
    jobs, scores = sums(60)
    bad = (0, 1, 30)
    for index in bad:
        jobs[index] = Job(misbehaving.hangs, "7", None, timeout=0.3)
        scores[index] = 0.0
    verdicts = pool.judge(jobs)
    assert [verdict.score for verdict in verdicts] == scores
    error = "timed out after 0.3 s"
    assert [verdict.error for verdict in verdicts] == [error if index in bad else None for index in range(60)]


def test_the_same_verifier_may_hang_die_and_be_right_in_one_batch(pool):
    told = ["fine", "hang", "fine", "die", "die", "fine", "hang", "die", "fine", "fine"]
    errors = {"hang": "timed out after 0.3 s", "die": "worker process died (signal 9)", "fine": None}
    limits = {"hang": 0.3}
    verdicts = pool.judge(
        [Job(misbehaving.hangs_when_told, what, None, timeout=limits.get(what, PATIENT)) for what in told]
    )
    assert [verdict.error for verdict in verdicts] == [errors[what] for what in told]


def test_a_child_that_a_verifier_forks_answers_for_no_other_item(pool):
    told = ["a", "fork", "b", "fork", "c", "d"]
    verdicts = pool.judge([Job(misbehaving.forks_and_lets_the_child_go_on, what, None) for what in told])
    assert [verdict.answer for verdict in verdicts] == [None if what == "fork" else what for what in told]
    assert [verdict.score for verdict in verdicts] == [0.5 if what == "fork" else 0.25 for what in told]


def test_importing_a_verifier_does_not_count_as_time_of_its_first_item():
    from tests.verifiers import slow_to_import  # takes 1.5 s

    with Pool(1, timeout=1.0) as pool:
        assert pool.judge([Job(slow_to_import.verify, "", None)] * 3) == [Verdict(1.0)] * 3


def test_a_hang_ends_the_processes_that_the_verifier_has_started(pool, tmp_path):
    file = tmp_path / "child"
    (verdict,) = pool.judge([Job(misbehaving.starts_a_process_and_hangs, "", str(file), timeout=2.0)])
    assert verdict.error == "timed out after 2 s"
    wait_until_dead([int(file.read_text())])


def test_hoarded_memory_is_released_by_a_new_worker():
    with Pool(1, timeout=PATIENT, memory_bytes=256 << 20) as pool:
        verdicts = pool.judge([Job(misbehaving.hoards_memory, "", None)] * 20)
    errors = [verdict.error for verdict in verdicts if verdict.error]
    assert all(error.startswith("MemoryError") for error in errors)
    # A worker holds five times 40 MiB before it runs out. Were it kept, all that follow would fail.
    assert 2 <= len(errors) <= 5
    assert all(verdict.score == 1.0 for verdict in verdicts if not verdict.error)


def test_what_verifiers_print_reaches_nobody(capfd):
    with Pool(1, timeout=PATIENT) as pool:
        assert pool.judge([Job(misbehaving.prints, "", None)] * 20) == [Verdict(1.0)] * 20
    assert capfd.readouterr() == ("", "")


def test_an_unknown_kind_is_refused_before_anything_is_judged(pool):
    for each in (pool, Pool(0)):
        with pytest.raises(ValueError, match="no verifier 'maths'; the kinds are"):
            each.judge([Job(MODSUM, "#7", "7"), Job("maths", "7", "7")])


def test_a_verifier_that_cannot_be_sent_is_refused_and_told_what_to_do(pool):
    def local(completion, reference):
        return Verdict(1.0, answer=completion + reference)

    main = functools.partial(local)
    main.__module__ = "__main__"
    for verifier in (local, lambda *_: Verdict(1.0), main):
        with pytest.raises(ValueError, match=r"job 1.*top level of a module.*workers=0"):
            pool.judge([Job(MODSUM, "#7", "7"), Job(verifier, "7", "7")])
    with pytest.raises(ValueError, match="job 0 cannot be sent"):
        pool.judge([Job(MODSUM, "#7", threading.Lock())])
    with Pool(0) as here:
        assert here.judge([Job(local, "a", "b")]) == [Verdict(1.0, answer="ab")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": -1}, "workers must be"),
        ({"workers": 1, "timeout": 0}, "timeout must be"),
        ({"workers": 5000}, "workers must be at most"),
        ({"workers": 1, "timeout": 1e-9}, "timeout must be"),
        ({"workers": 1, "timeout": float("nan")}, "timeout must be"),
        ({"workers": 1, "timeout": float("inf")}, "timeout must be"),
        ({"workers": 1, "memory_bytes": 1000}, "memory_bytes must be at least"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pool(**arguments)


def test_no_process_is_left_after_close_and_a_closed_pool_says_so():
    with Pool(2, timeout=PATIENT) as pool:
        workers = process_ids(pool)
        assert len(workers) == 2
        assert all(is_alive(worker) for worker in workers)
    assert not any(is_alive(worker) for worker in workers)
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        pool.judge([])


def test_signals_for_the_trainer_do_not_end_workers():
    with Pool(1, timeout=PATIENT) as pool:
        for worker in pool.process_ids:
            os.kill(worker, signal.SIGTERM)  # while it starts
        before = process_ids(pool)
        for number in (signal.SIGINT, signal.SIGTERM):
            for worker in before:
                os.kill(worker, number)
        assert process_ids(pool) == before


def test_workers_killed_between_batches_are_replaced_without_a_verdict_of_theirs():
    jobs, scores = sums(20)
    with Pool(2, timeout=PATIENT) as pool:
        for _ in range(3):
            for worker in process_ids(pool):
                os.kill(worker, signal.SIGKILL)
            verdicts = pool.judge(jobs)
            assert [(verdict.score, verdict.error) for verdict in verdicts] == [(score, None) for score in scores]


@pytest.mark.parametrize("size", [1, 2])
def test_workers_that_sending_finds_dead_are_replaced(size, monkeypatch):
    jobs, scores = sums(20)
    send, dead = Worker.send, []

    def broken(worker, items):
        if len(dead) < size:
            dead.append(worker)
            worker.pending.extend(items)
            raise BrokenPipeError
        send(worker, items)

    with Pool(size, timeout=PATIENT) as pool:
        process_ids(pool)  # waits until they are ready
        monkeypatch.setattr(Worker, "send", broken)
        verdicts = [future.result(PATIENT) for future in pool.submit(jobs)]
    assert [(verdict.score, verdict.error) for verdict in verdicts] == [(score, None) for score in scores]
    assert len(set(map(id, dead))) == size


def test_threads_that_share_a_pool_get_their_own_verdicts(pool):
    results = {}

    def judge(name):
        results[name] = [v.answer for v in pool.judge([Job(misbehaving.echo, f"{name} {i}", None) for i in range(50)])]

    threads = [threading.Thread(target=judge, args=[name]) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {name: [f"{name} {i}" for i in range(50)] for name in range(4)}


def test_workers_that_cannot_start_are_an_error_with_their_last_words(monkeypatch, tmp_path):
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\necho this interpreter is broken >&2\nexit 3\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with Pool(2) as pool, pytest.raises(RuntimeError, match=r"(?s)do not start.*exit code 3.*interpreter is broken"):
        pool.judge([Job(MODSUM, "#7", "7")])


def run_script(tmp_path, text, **options):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(text))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment, **options
    )


def test_the_main_script_is_not_run_again_by_workers_and_may_not_define_verifiers(tmp_path):
    script = """
        from rlvr_jax.verifiers import Verdict
        from rlvr_jax.verifiers.pool import Job, Pool
        print("top level")
        with Pool(2) as pool:
            print(pool.judge([Job("gsm8k", "#### 7", "7")])[0].score)
            try:
                pool.judge([Job(lambda *_: Verdict(1.0), "#7", "7")])
            except ValueError as error:
                print(error)
    """
    with run_script(tmp_path, script) as process:
        lines = process.stdout.read().splitlines()
    assert lines[:2] == ["top level", "1.0"]
    assert "is defined in the main script" in lines[2]
    assert len(lines) == 3


@pytest.mark.parametrize("ending", ["SIGKILL", "exit without close"])
def test_no_process_is_left_when_the_trainer_ends_without_closing(tmp_path, ending):
    script = f"""
        import sys, time
        sys.path.append({str(ROOT)!r})
        from rlvr_jax.verifiers.pool import Job, Pool
        pool = Pool(2)
        pool.judge([Job({MODSUM!r}, "#7", "7")] * 8)
        (verdict,) = pool.judge([Job("tests.verifiers.misbehaving:starts_a_process", "", None)])
        print(*pool.process_ids, verdict.answer, flush=True)
        time.sleep({3600 if ending == "SIGKILL" else 0})
    """
    with run_script(tmp_path, script) as process:
        workers = [int(word) for word in process.stdout.readline().split()]
        assert len(workers) == 3  # and what a verifier has started
        if ending == "SIGKILL":
            process.kill()
    wait_until_dead(workers)


def test_a_worker_that_hangs_ends_itself_when_no_pool_is_left_to_kill_it():
    ours, theirs = socket.socketpair()
    script = (
        "import sys\n"
        "from rlvr_jax.verifiers import jobs, worker\n"
        "jobs.START_UP_SECONDS = 0.25\n"  # what a worker adds to the limit of a job
        "worker.main()\n"
    )
    command = [sys.executable, "-c", script, str(theirs.fileno()), str(1 << 30)]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT)
    theirs.close()
    try:
        with ours, ours.makefile("rb") as said:
            assert said.readline() == b'["ready"]\n'
            ours.sendall(pickle.dumps([order_of(0, Job(misbehaving.hangs, "", None), 0.25)]))
            assert [said.readline() for _ in range(3)] == [b'["started"]\n', b'["importing"]\n', b'["started"]\n']
        assert process.wait(timeout=PATIENT) == -signal.SIGALRM
    finally:
        process.kill()
        process.wait()


def test_functions_by_name_are_judged_like_any_kind_bounded_and_from_a_file_of_the_working_directory(tmp_path):
    (tmp_path / "my_reward.py").write_text(
        textwrap.dedent("""
        import time

        def check(completion, reference):
            if completion == "hang":
                time.sleep(3600)
            if completion == "hoard":
                completion = "x" * (1 << 40)
            if completion == "raise":
                raise KeyError(completion)
            return {"score": completion == reference, "length": len(completion)}
    """)
    )
    name = f"{tmp_path}/my_reward.py:check"
    texts = {"yes": None, "no": None, "hoard": "MemoryError", "raise": "KeyError", "<think>yes": None}
    with Pool(1, timeout=PATIENT) as own:
        verdicts = own.judge([Job(name, text, "yes") for text in texts])
        (hung,) = own.judge([Job(name, "hang", "yes", timeout=0.3)])
    assert [verdict.score for verdict in verdicts] == [1, 0, 0, 0, 0]
    assert verdicts[1].parts == {"length": 2.0}
    assert [(verdict.error or "None").partition(":")[0] for verdict in verdicts] == [str(x) for x in texts.values()]
    assert hung.error == "timed out after 0.3 s"
