"""What all tests share: eight virtual CPU devices, a compilation cache, and the array shapes of annotations checked."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

# Before JAX is imported, here and in the processes that tests start. Compiling is most of a test's time, and many
# compile the same functions.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".cache" / "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the repository."""
    assert SHARED_DATA.is_dir(), f"these tests read the real data sets in {SHARED_DATA}, which is absent"
    return SHARED_DATA
