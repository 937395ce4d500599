import contextlib
import gc

import pytest

from rlvr_jax.parallel.host import long_lived_objects


@pytest.mark.parametrize("threshold", [700, 50_000, 0])
def test_collections_become_rarer_never_more_frequent_and_as_before_after_an_error(threshold):
    before = gc.get_threshold()
    gc.set_threshold(threshold, 11, 12)
    try:
        run = contextlib.ExitStack()
        run.enter_context(long_lived_objects())()
        with long_lived_objects() as begin_nested:
            begin_nested()
        assert gc.get_threshold() == (threshold and max(threshold, 20_000), 11, 12)
        assert run.__exit__(KeyError, KeyError(), None) is False
        assert gc.get_threshold() == (threshold, 11, 12)
        assert gc.get_freeze_count() == 0
    finally:
        gc.set_threshold(*before)
