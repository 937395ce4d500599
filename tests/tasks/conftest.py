"""GSM8K's files, and one preparation of them that the tests share."""

from pathlib import Path

import pytest

from rlvr_jax.tasks import Task


@pytest.fixture(scope="session")
def gsm8k_files() -> Path:
    """The folder with train.jsonl.gz and test.jsonl.gz."""
    folder = Path(__file__).parents[2].parent / "shared" / "data" / "gsm8k"
    for name in ("train.jsonl.gz", "test.jsonl.gz"):
        if not (folder / name).is_file():
            pytest.fail(f"absent: ../shared/data/gsm8k/{name} (relative to the repository), which these tests read")
    return folder


@pytest.fixture(scope="session")
def gsm8k_data_dir(gsm8k_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data_dir in which GSM8K is prepared. Not to be changed."""
    from rlvr_jax.tasks.gsm8k import gsm8k

    data_dir = tmp_path_factory.mktemp("gsm8k")
    gsm8k(str(data_dir), str(gsm8k_files))
    return data_dir


@pytest.fixture(scope="session")
def gsm8k_task(gsm8k_data_dir: Path) -> Task:
    from rlvr_jax.tasks.gsm8k import gsm8k

    return gsm8k(str(gsm8k_data_dir))
