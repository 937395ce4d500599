import gc
import sys

import jax
import pytest

from rlvr_jax.training import problems


@pytest.fixture(autouse=True, scope="module")
def quick(no_curves):  # noqa: ARG001
    """Curves, which are tested in `reporting` and by the commands, are not drawn, and few prompts are checked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(problems, "_CHECKED_PROMPTS", 16)
        yield


@pytest.fixture
def four_devices(one_device, monkeypatch):  # noqa: ARG001
    """Four of the eight, for a test on meshes in a module with one device."""
    monkeypatch.setattr(jax, "devices", lambda *_: jax.local_devices()[:4])


@pytest.fixture
def unfinished_readers_are_silent(monkeypatch):
    """Orbax leaves readers of a damaged checkpoint unfinished, which Python reports when it collects them."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    gc.freeze()  # to look through all that there was before takes seconds
    yield
    gc.collect()
    gc.unfreeze()
