import contextlib
import signal
import threading
import time

import pytest

from rlvr_jax.time_limit import time_limits

pytestmark = pytest.mark.fast


def endless():
    while True:
        with contextlib.suppress(Exception):
            len([])


def test_code_that_takes_too_long_is_interrupted_even_if_it_swallows_errors_and_the_next_call_has_its_own_time():
    with time_limits(0.05) as limited:
        for _ in range(2):
            with pytest.raises(TimeoutError, match=r"0\.05 s"):
                limited(endless)
        assert limited(lambda: 1) == 1


def test_results_and_errors_pass_and_the_signal_is_as_before():
    before = signal.getsignal(signal.SIGALRM)
    with time_limits(60) as limited:
        assert limited(lambda: signal.getitimer(signal.ITIMER_REAL)[0]) > 0
        with pytest.raises(KeyError):
            limited(lambda: {}["missing"])
    with contextlib.suppress(KeyError), time_limits(60):
        raise KeyError
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_function_with_a_timer_of_its_own_does_not_end_the_limit_of_the_next():
    def impolite():
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.alarm(100)
        signal.alarm(0)

    with time_limits(0.05) as limited:
        limited(impolite)
        with pytest.raises(TimeoutError, match=r"0\.05 s"):
            limited(endless)


def test_a_limit_within_another_leaves_it_as_it_was_and_the_time_between_calls_is_not_limited():
    with time_limits(0.05) as outer:
        with time_limits(60) as inner:
            assert inner(lambda: 1) == 1
        time.sleep(0.1)
        assert outer(lambda: 1) == 1
        with pytest.raises(TimeoutError, match=r"0\.05 s"):
            outer(endless)


def test_without_a_limit_and_in_other_threads_nothing_is_limited():
    with time_limits(None) as limited:
        assert limited(lambda: signal.getitimer(signal.ITIMER_REAL)) == (0, 0)
    seen = []

    def work():
        with time_limits(1e-6) as limited:
            seen.append(limited(lambda: sum(range(10**5))))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [sum(range(10**5))]
