"""Fixtures and settings of all tests: eight virtual CPU devices, a compilation cache, checked shapes of annotations.

With --gpu the tests of the GPU's kernels run on this machine's GPU, compiled instead of interpreted.
"""

import ctypes
import gc
import importlib.metadata
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import psutil
import pytest
from hypothesis import settings

from tests.annotations import checked
from tests.curves import NO_CURVES

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "tests" / "data"
MOST_MEMORY = 3 << 30  # bytes of a process of the tests
# What `make test-fast` runs: nothing here compiles for long, waits or starts processes of JAX.
FAST = (
    *("evaluation", "hf/test_safetensors", "kernels/test_schedule", "kernels/test_online_softmax"),
    *("learner/test_advantages", "learner/test_batch", "learner/test_losses", "learner/test_scores"),
    *("learner/test_rewards", "policy/test_config", "policy/test_rotary", "reporting", "tasks", "test_config"),
    *("text", "training/test_record", "training/test_workdir", "verifiers/test_arc", "verifiers/test_countdown"),
    *("verifiers/test_cryptarithm", "verifiers/test_format", "verifiers/test_math_"),
    *("verifiers/test_modsum", "verifiers/test_number"),
)
if not importlib.util.find_spec("rlvr_jax.configs"):
    pytest.exit("setup.py is newer than its installation; run: make .venv/installed", 4)

# Before a package is imported whose annotations are checked (--jaxtyping-packages in pyproject.toml).
jaxtyping.jaxtyped = checked

settings.register_profile("any machine", deadline=None)  # how long an example takes depends on what else runs
settings.load_profile("any machine")

# Traced and compiled functions are a million objects that stay; to look for garbage among them takes time.
gc.set_threshold(50_000, 20, 20)

# Before JAX is imported, here and in the processes that tests start. Compiling is most of a test's time, and many
# compile the same functions. Without most optimizations it takes half as long, and an eighth of that if XLA emits code
# for the CPU directly and in one piece, instead of by way of MLIR and in 32 parts. JAX 0.11 has MLIR only.
os.environ["JAX_PLATFORMS"] = "cpu"
if os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1") == "1":
    emitters = "--xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib") < "0.11" else ""
    os.environ["XLA_FLAGS"] = (
        f"{emitters} --xla_cpu_parallel_codegen_split_count=1 "
        + os.environ.get("XLA_FLAGS", "")  # the last one of a name counts
    )
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")  # of operations in the source, which no test reads
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(ROOT / ".cache" / "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.03"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process that a test starts compiles all that it imports
sys.dont_write_bytecode = False
# For the TPU compiler, in the tests that compile for chips that aren't here: several processes may load it at once, and
# it need not look for the machine that it would run on.
if (TPU_COMPILER := ROOT / ".venv" / "tpu" / "libtpu" / "libtpu.so").exists():
    os.environ.setdefault("TPU_LIBRARY_PATH", str(TPU_COMPILER))
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-8"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="only the tests that take minutes")
    parser.addoption("--data", metavar="DIR", help="only the tests that read data sets, on the whole files in DIR")
    parser.addoption("--browser", action="store_true", help="only the tests that open pages in a browser")
    parser.addoption("--gpu", action="store_true", help="only the tests of the GPU's kernels, on this machine's GPU")


def pytest_configure(config: pytest.Config) -> None:
    # A shell lets its background jobs ignore Ctrl-C, and what ignores it hands that on to the processes that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "fast: in `FAST`")
    config.addinivalue_line("markers", "whole: reads whole data sets, which only --data=DIR has")
    config.addinivalue_line("markers", "full: takes minutes, only with --full")
    config.addinivalue_line("markers", "browser: needs the extra `browser`, only with --browser")
    config.addinivalue_line("markers", "gpu: runs the GPU's kernels, interpreted unless there is --gpu")
    if config.getoption("--gpu"):
        os.environ |= {"JAX_PLATFORMS": "cuda", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    if (folder := config.getoption("--data")) is None:
        return
    if not folder:
        raise pytest.UsageError("which data? make test-data DATA=DIR; tests/data/README.md lists the files of DIR")
    files = [path.relative_to(SAMPLES) for path in sorted(SAMPLES.glob("*/*.jsonl"))]
    missing = [str(file) for file in files if not any(Path(folder, f"{file}{end}").is_file() for end in ("", ".gz"))]
    if missing:
        raise pytest.UsageError(f"{folder} lacks {', '.join(missing)} (or .gz), see tests/data/README.md")


def is_fast(path: Path) -> bool:
    """Whether the tests of a file are in `FAST`."""
    return path.relative_to(ROOT / "tests").as_posix().startswith(FAST)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks `FAST`; chooses with --data the tests that read data sets, with --full those that take minutes.

    With --browser those that need one, with --gpu those of the GPU's kernels. The fast ones come last, and of these the
    verifiers' before the others, so that no worker waits long for another one that has begun a long file.
    """
    for item in items:
        if is_fast(item.path):
            item.add_marker("fast")
    data, full, browser, gpu = (config.getoption(option) for option in ("--data", "--full", "--browser", "--gpu"))
    kept = [x for x in items if ("data_sets" in x.fixturenames if data else not x.get_closest_marker("whole"))]
    kept = [x for x in kept if bool(x.get_closest_marker("full")) == full]
    kept = [x for x in kept if bool(x.get_closest_marker("browser")) == browser]
    kept = [x for x in kept if x.get_closest_marker("gpu")] if gpu else kept
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    place = {path: i for i, path in enumerate(dict.fromkeys(item.path for item in kept))}
    items[:] = sorted(kept, key=lambda x: (1, -place[x.path]) if x.get_closest_marker("fast") else (0, place[x.path]))


def pytest_sessionfinish() -> None:
    """Looks for garbage once; pytest and the end of the interpreter would go through millions of objects each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data_sets(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder with a folder for each data set: samples of them, or with --data the whole ones."""
    if data := request.config.getoption("--data"):
        yield Path(data).absolute()
        return
    from rlvr_jax.tasks import published

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "CHECKSUMS", SAMPLES / "checksums.json")
        published.checksums.cache_clear()
        yield SAMPLES
    published.checksums.cache_clear()


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir in which data sets are prepared when a test first asks for them. Not to be changed."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module", autouse=True)
def bounded_memory(request: pytest.FixtureRequest) -> Iterator[None]:
    """Between modules, what JAX has traced and compiled is dropped where it has grown large: it would come to 7 GB."""
    yield
    jax = sys.modules.get("jax")
    if jax is None or is_fast(request.path) or psutil.Process().memory_info().rss < MOST_MEMORY:
        return
    jax.clear_caches()
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of glibc
        trim(0)


@pytest.fixture(scope="module")
def no_cache() -> Iterator[None]:
    """For programs of chips that aren't here: a cached one can't be read again, and to optimise them takes long."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_exec_time_optimization_effort", -1.0)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_exec_time_optimization_effort", 0.0)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def one_device() -> Iterator[None]:
    """Runs see one of the eight devices: to compile and run for eight takes twice as long."""
    import jax

    with pytest.MonkeyPatch.context() as patch:
        first = jax.devices()[:1]
        patch.setattr(jax, "devices", lambda *_: first)
        yield


@pytest.fixture
def eight_devices(one_device: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """All of them again, for a test on meshes in a module with one device."""
    import jax

    monkeypatch.setattr(jax, "devices", jax.local_devices)


@pytest.fixture(scope="module")
def no_curves() -> Iterator[None]:
    """Runs draw no curves."""
    from rlvr_jax.reporting import curves

    with pytest.MonkeyPatch.context() as patch:
        for name, draw in NO_CURVES.items():
            patch.setattr(curves, name, draw)
        yield
