import gc
import sys

import pytest


@pytest.fixture(autouse=True, scope="module")
def quick(no_curves):
    """Curves are tested in `reporting` and by the commands."""


@pytest.fixture
def unfinished_readers_are_silent(monkeypatch):
    """Orbax leaves readers of a damaged checkpoint unfinished, which Python reports when it collects them."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    gc.freeze()  # to look through all that there was before takes seconds
    yield
    gc.collect()
    gc.unfreeze()
