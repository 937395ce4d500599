import contextlib
import signal
import threading

import pytest

from rlvr_jax.time_limit import time_limit

pytestmark = pytest.mark.fast


def endless():
    while True:
        with contextlib.suppress(Exception):
            len([])


def test_code_that_takes_too_long_is_interrupted_even_if_it_swallows_errors():
    with pytest.raises(TimeoutError, match=r"0\.05 s"), time_limit(0.05):
        endless()


def test_results_and_errors_pass_and_the_signal_is_as_before():
    before = signal.getsignal(signal.SIGALRM)
    with time_limit(60):
        found = 1
    with pytest.raises(KeyError), time_limit(60):
        raise KeyError
    assert found == 1
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_without_a_limit_and_in_other_threads_nothing_is_limited():
    with time_limit(None):
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    seen = []

    def work():
        with time_limit(1e-6):
            seen.append(sum(range(10**5)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [sum(range(10**5))]
