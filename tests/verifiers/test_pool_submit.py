"""Futures of the pool: verdicts and tool calls that are done while the caller does something else."""

import gc
import os
import sys
import threading
import time
from concurrent.futures import CancelledError, wait

import pytest

from rlvr_jax.verifiers.pool import MIN_MEMORY_BYTES, Job, Pool, PoolError, ToolCall, ToolError
from tests.verifiers import misbehaving
from tests.verifiers.test_pool import MODSUM, PATIENT, run_script, wait_until_dead


class Gate:
    """A named pipe that a job waits at until the test lets it pass."""

    def __init__(self, path):
        os.mkfifo(path)
        self.path = path
        self.job = ToolCall(misbehaving.waits_at, (str(path),), timeout=2 * PATIENT)

    def arrived(self):
        """Waits until a job is there."""
        deadline = time.monotonic() + PATIENT
        while True:
            try:
                self.end = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
                return self
            except OSError:  # nobody reads yet
                assert time.monotonic() < deadline, "no job has come to the gate"
                time.sleep(0.005)

    def open(self):
        os.close(self.end)


@pytest.fixture(scope="module")
def pool():
    with Pool(2, timeout=PATIENT) as pool:
        yield pool


@pytest.fixture(scope="module")
def single():
    """One worker: what is submitted after a gate's job waits until the gate opens."""
    with Pool(1, timeout=PATIENT) as pool:
        yield pool


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path / "gate")


def notes(path, texts):
    return [ToolCall(misbehaving.note, (str(path), text)) for text in texts]


def pool_threads():
    return [thread for thread in threading.enumerate() if thread.name == "verifier pool"]


def error_of(future):
    error = future.exception(PATIENT)
    return type(error), str(error)


def test_verdicts_arrive_while_the_caller_waits_for_something_else(pool):
    arrived = threading.Semaphore(0)
    futures = pool.submit([Job(MODSUM, f"#{i % 10}", "7") for i in range(100)])
    for future in futures:
        future.add_done_callback(lambda _: arrived.release())
    assert all(arrived.acquire(timeout=PATIENT) for _ in futures)  # the caller never waits for a future
    assert [future.result(0).score for future in futures] == [float(i % 10 == 7) for i in range(100)]


def test_a_verdict_that_is_there_at_once_has_a_future_like_those_of_others(pool, gate):
    with Pool(0) as here:
        instant, other = here.submit([Job("modsum", f"#{i}", "7") for i in (7, 8)])
    late, called = pool.submit([gate.job])[0], []
    instant.add_done_callback(called.append)
    assert wait([instant, other], timeout=0) == ({instant, other}, set())
    assert wait([late, instant], timeout=0) == ({instant}, {late})
    assert called == [instant]
    assert (instant.result(0).score, other.result().score, instant.exception()) == (1.0, 0.0, None)
    assert (instant.cancel(), instant.cancelled(), instant.running()) == (False, False, False)
    gate.arrived().open()
    assert wait([late, instant], PATIENT) == ({late, instant}, set())


def test_a_trickle_of_submissions_is_done_as_it_comes(pool):
    for batch in range(30):
        texts = [f"{batch} {i}" for i in range(batch % 4)]
        futures = pool.submit([Job(misbehaving.echo, text, None) for text in texts])
        assert [future.result(PATIENT).answer for future in futures] == texts


def test_jobs_are_done_in_the_order_of_their_submission(single, gate, tmp_path):
    (first,) = single.submit([gate.job])
    gate.arrived()
    sizes = [i % 4 for i in range(60)]
    texts = [[f"{batch}:{i}" for i in range(size)] for batch, size in enumerate(sizes)]
    futures = [future for batch in texts for future in single.submit(notes(tmp_path / "notes", batch))]
    assert not any(future.done() for future in [first, *futures])
    gate.open()
    wait([first, *futures], PATIENT)
    assert (tmp_path / "notes").read_text().split() == [text for batch in texts for text in batch]


def test_jobs_that_take_long_are_not_handed_out_behind_each_other(pool, tmp_path):
    pool.judge([Job(MODSUM, "#7", "7")] * 200)  # the pool has learnt that jobs are short
    gates = [Gate(tmp_path / name) for name in "ab"]
    futures = pool.submit([gate.job for gate in gates])
    for each in gates:
        each.arrived()  # both at once
    for each in gates:
        each.open()
    assert [future.result(PATIENT) for future in futures] == ["", ""]


def test_a_worker_does_what_the_other_is_too_busy_for(pool, gate):
    (busy,) = pool.submit([gate.job])
    gate.arrived()
    for _ in range(5):
        assert len(pool.judge([Job(MODSUM, "#7", "7")] * 50)) == 50
    assert not busy.done()
    gate.open()
    assert busy.result(PATIENT) == ""


def test_a_job_that_waits_can_be_cancelled_and_one_at_work_cannot(single, gate, tmp_path):
    (first,) = single.submit([gate.job])
    gate.arrived()
    futures = single.submit(notes(tmp_path / "notes", "012345"))
    assert [future.cancel() for future in futures[::2]] == [True] * 3
    assert not first.cancel()
    gate.open()
    assert [future.result(PATIENT) for future in futures[1::2]] == ["1", "3", "5"]
    assert (tmp_path / "notes").read_text().split() == ["1", "3", "5"]
    for future in futures[::2]:
        with pytest.raises(CancelledError):
            future.result(0)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_result_of_a_tool_call_is_what_the_function_returns_as_json_has_it(workers, single):
    calls = [
        ToolCall(misbehaving.add, (1,), {"b": 2}),
        ToolCall("tests.verifiers.misbehaving:add", ("x", "\ud800")),
        ToolCall("math:factorial", [20]),
    ]
    with Pool(0) as here:
        futures = (single if workers else here).submit(calls)
    assert [future.result(PATIENT) for future in futures] == [
        {"sum": 3, "pair": [1, 2]},
        {"sum": "x\ud800", "pair": ["x", "\ud800"]},
        2432902008176640000,
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_tool_call_that_raises_or_returns_no_json_is_an_error_that_says_so(workers, single):
    calls = {
        "KeyError: 'what a pity'": ToolCall(misbehaving.raises, ("", None)),
        "Unprintable": ToolCall(misbehaving.raises_unprintable, ("", None)),
        "SystemExit: good bye": ToolCall(misbehaving.exits, ("", None)),
        "TypeError: add() missing 1 required positional argument: 'a'": ToolCall(misbehaving.add),
        "its result, of type dict, is not JSON: TypeError: Object of type object is not JSON serializable": ToolCall(
            misbehaving.returns_an_object
        ),
    }
    with Pool(0) as here:
        *futures, good = (single if workers else here).submit([*calls.values(), ToolCall(misbehaving.add, (1,))])
    assert [error_of(future) for future in futures] == [(ToolError, why) for why in calls]
    assert good.result(PATIENT) == {"sum": 1, "pair": [1, 0]}


def test_a_tool_call_that_hangs_dies_or_needs_too_much_memory_costs_itself_and_no_other(pool):
    calls = {
        "timed out after 0.5 s": ToolCall(misbehaving.hangs, ("", None), timeout=0.5),
        "worker process died (signal 9)": ToolCall(misbehaving.dies_of_signal, ("", None)),
        "worker process died (exit code 7)": ToolCall(misbehaving.dies_with_exit_code, ("", None)),
        f"MemoryError: more than {1 << 30} bytes needed in all": ToolCall(misbehaving.wants_memory, ("", None)),
    }
    bad = pool.submit(list(calls.values()) * 2)
    good = pool.submit([Job(MODSUM, "#7", "7")] * 40)
    assert [error_of(future) for future in bad] == [(ToolError, why) for why in calls] * 2
    assert [(v.score, v.error) for v in (future.result(PATIENT) for future in good)] == [(1.0, None)] * 40


def test_a_job_may_have_less_or_more_time_than_the_pool_gives():
    with Pool(1, timeout=0.4) as pool:
        patient, late = pool.submit([ToolCall(time.sleep, (1.0,), timeout=PATIENT), ToolCall(time.sleep, (PATIENT,))])
        assert patient.result(PATIENT) is None
        assert error_of(late) == (ToolError, "timed out after 0.4 s")
    with Pool(1, timeout=PATIENT) as pool:
        (verdict,) = pool.judge([Job(misbehaving.hangs, "", None, timeout=0.3)])
        assert (verdict.score, verdict.error) == (0.0, "timed out after 0.3 s")


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_a_time_limit_out_of_range_is_refused_before_anything_is_done(single, timeout, tmp_path):
    jobs = [*notes(tmp_path / "notes", "1"), ToolCall(misbehaving.add, (1,), timeout=timeout)]
    with pytest.raises(ValueError, match=f"job 1: timeout must be .* {timeout}"):
        single.submit(jobs)
    single.judge([Job(MODSUM, "#7", "7")])
    assert not (tmp_path / "notes").exists()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (ToolCall("tests.verifiers.misbehaving:nothing"), "has no 'nothing'"),
        (ToolCall("no_such_module:f"), "no module 'no_such_module'"),
        (ToolCall(misbehaving.add, "text"), r"args .* must be a tuple, not str: \('text',\)"),
    ],
)
def test_a_tool_call_of_nothing_is_refused(workers, call, message, single):
    with Pool(0) as here, pytest.raises(ValueError, match=message):
        (single if workers else here).submit([call])


def test_a_tool_call_that_cannot_be_sent_is_refused(single):
    for call in (ToolCall(lambda: 1), ToolCall(misbehaving.add, (threading.Lock(),))):
        with pytest.raises(ValueError, match=r"job 0 cannot be sent.*workers=0"):
            single.submit([call])
    with Pool(1, memory_bytes=MIN_MEMORY_BYTES) as pool:
        large, good = pool.submit([ToolCall(len, ("7" * (MIN_MEMORY_BYTES // 8),)), ToolCall(len, ("7",))])
        assert "bytes; a worker takes up to" in error_of(large)[1]
        assert good.result(PATIENT) == 1


def test_a_verifier_that_writes_to_the_pool_itself_is_ended(single):
    verdicts = single.judge([Job(misbehaving.answers_by_itself, "", None), Job(MODSUM, "#7", "7")])
    assert [(v.score, v.error) for v in verdicts] == [(0.0, "worker process died (signal 9)"), (1.0, None)]


def test_threads_submit_to_one_pool(pool):
    results = {}

    def submit(name):
        texts = [f"{name} {i}" for i in range(40)]
        futures = [future for text in texts for future in pool.submit([Job(misbehaving.echo, text, None)])]
        results[name] = [future.result(PATIENT).answer for future in futures] == texts

    threads = [threading.Thread(target=submit, args=[name]) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(4), True)


def test_closing_settles_every_future_and_leaves_no_process_and_no_thread(gate):
    threads, errors = pool_threads(), []

    def judge():
        try:
            pool.judge([Job(MODSUM, "#7", "7")])
        except PoolError as error:
            errors.append(str(error))

    with Pool(1, timeout=PATIENT) as pool:
        (first,) = pool.submit([gate.job])
        gate.arrived()
        waiting = pool.submit([Job(MODSUM, "#7", "7")] * 50)
        waiting[3].cancel()
        caller = threading.Thread(target=judge)
        caller.start()
        workers = pool.process_ids
    gate.open()
    caller.join(PATIENT)
    assert errors == ["the verifier pool is closed"]  # whether it came before the end or after
    assert {error_of(future) for future in [first, *waiting[:3], *waiting[4:]]} == {(PoolError, errors[0])}
    assert waiting[3].cancelled()
    assert pool_threads() == threads
    wait_until_dead(workers)
    for _ in range(2):
        pool.close()
        with pytest.raises(PoolError, match="closed"):
            pool.submit([Job(MODSUM, "#7", "7")])


def test_a_pool_that_nobody_holds_any_more_ends(gate):
    threads = pool_threads()
    pool = Pool(1, timeout=PATIENT)
    futures = pool.submit([gate.job, Job(MODSUM, "#7", "7")])
    gate.arrived()
    workers = pool.process_ids
    (thread,) = set(pool_threads()) - set(threads)
    del pool
    gc.collect()
    assert [error_of(future)[0] for future in futures] == [PoolError] * 2
    thread.join(PATIENT)
    assert pool_threads() == threads
    wait_until_dead(workers)
    gate.open()


def test_workers_that_cannot_start_are_an_error_of_every_future(monkeypatch, tmp_path):
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\nexit 3\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with Pool(2) as pool:
        futures = pool.submit([Job(MODSUM, "#7", "7"), ToolCall(misbehaving.add, (1,))] * 3)
        assert {error_of(future)[0] for future in futures} == {PoolError}
        assert all("exit code 3" in error_of(future)[1] for future in futures)


def test_a_callback_may_submit_and_close_but_not_wait(gate):
    seen = []

    def callback(future):
        try:
            pool.judge([Job(MODSUM, "#7", "7")])
        except RuntimeError as error:
            seen.append(str(error))
        seen.extend(pool.submit([ToolCall(misbehaving.add, (future.result(),), {"b": ""})]))
        seen[-1].add_done_callback(lambda _: pool.close())

    pool = Pool(1, timeout=PATIENT)
    (future,) = pool.submit([gate.job])
    gate.arrived()
    future.add_done_callback(callback)
    gate.open()
    pool._dispatcher.join()
    message, second = seen
    assert "let it submit" in message
    assert second.result(0) == {"sum": "", "pair": ["", ""]}


def test_an_interrupted_judge_gives_its_jobs_up_and_the_pool_goes_on(tmp_path):
    script = f"""
        import os, signal, threading
        from rlvr_jax.verifiers.pool import Job, Pool, ToolCall
        from tests.verifiers.test_pool_submit import Gate, misbehaving
        from pathlib import Path

        gate = Gate(Path({str(tmp_path / "gate")!r}))

        def interrupt():
            gate.arrived()
            os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        with Pool(1, timeout=3600.0) as pool:
            before = pool.judge([Job(misbehaving.process_id, "", None)])
            threading.Thread(target=interrupt).start()
            try:
                pool.judge([gate.job] + [Job(misbehaving.echo, "old", None)] * 50)
            except KeyboardInterrupt:
                print("interrupted")
            print(pool.judge([Job(misbehaving.echo, "new", None)])[0].answer)
            print(pool.judge([Job(misbehaving.process_id, "", None)]) != before)
    """
    with run_script(tmp_path, script) as process:
        assert process.stdout.read().split() == ["interrupted", "new", "True"]


def test_a_process_that_ends_with_futures_pending_ends_its_workers(tmp_path):
    script = f"""
        from pathlib import Path
        from rlvr_jax.verifiers.pool import Pool
        from tests.verifiers.test_pool_submit import Gate

        gate, pool = Gate(Path({str(tmp_path / "gate")!r})), Pool(2, timeout=3600.0)
        futures = pool.submit([gate.job] * 3)
        gate.arrived()
        print(*pool.process_ids, flush=True)
    """
    with run_script(tmp_path, script) as process:
        workers = [int(word) for word in process.stdout.read().split()]
    assert process.returncode == 0
    assert len(workers) == 2
    wait_until_dead(workers)
