"""What all tests share: eight virtual CPU devices, a compilation cache, and the array shapes of annotations checked."""

import importlib.util
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
if not importlib.util.find_spec("rlvr_jax.configs"):
    pytest.exit("setup.py is newer than its installation; run: make .venv/installed", 4)
SHARED_DATA = ROOT.parent / "shared" / "data"

# Before JAX is imported, here and in the processes that tests start. Compiling is most of a test's time, and many
# compile the same functions.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".cache" / "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["HF_HUB_OFFLINE"] = "1"
# For the TPU compiler, in the tests that compile for chips that aren't here: several processes may load it at once, and
# it need not look for the machine that it would run on.
if (TPU_COMPILER := ROOT / ".venv" / "tpu" / "libtpu" / "libtpu.so").exists():
    os.environ.setdefault("TPU_LIBRARY_PATH", str(TPU_COMPILER))
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-8"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the repository."""
    assert SHARED_DATA.is_dir(), f"these tests read the real data sets in {SHARED_DATA}, which is absent"
    return SHARED_DATA


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir in which data sets are prepared when a test first asks for them. Not to be changed."""
    return tmp_path_factory.mktemp("data")
