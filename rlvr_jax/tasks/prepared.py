"""Published files, downloaded or local, prepared and read by TFDS.

TFDS stores the records as JSON text in array_record files, which have checksums, and reads them with `as_data_source`:
no TensorFlow.
"""

import contextlib
import http.client
import io
import json
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from rlvr_jax.tasks.published import PublishedFile, Record, checked_records, checksums

_DOWNLOAD_TIMEOUT = 60  # seconds
_TFDS_SPLIT = "records"


def load(file: PublishedFile, data_dir: str = "", manual_dir: str = "") -> list[Record]:
    """The records of a file, in their published order.

    Args:
      file: which one.
      data_dir: parent folder of the prepared data, which is created if absent; `~/tensorflow_datasets` if empty.
      manual_dir: a folder with the file, or with `file.folder` that contains it, used instead of the network. The file
        is checked even if the data has already been prepared.

    Raises:
      FileNotFoundError: `manual_dir` doesn't hold the file.
      ValueError: the file differs from the published one, or the prepared data is damaged.
      ConnectionError: the file could not be downloaded.
      OSError: the data could not be written under `data_dir`.
    """
    root = Path(data_dir or "~/tensorflow_datasets").expanduser()
    manual = Path(manual_dir).expanduser() if manual_dir else None
    path = _local_file(file, manual) if manual else None
    # TFDS writes into a folder `incomplete.*` and renames it at the end, so an existing folder is complete.
    folder = root / file.name / str(Builder.VERSION)
    if folder.exists():
        if path:
            checked_records(file, path.read_bytes(), str(path))
    else:
        config = tfds.download.DownloadConfig(manual_dir=manual, try_download_gcs=False)
        try:
            with _quiet_unless_terminal():
                Builder(file, root).download_and_prepare(download_config=config)
        except ConnectionError:
            raise
        except OSError as error:
            if not folder.exists():  # otherwise another process was faster
                raise OSError(f"could not prepare {file.title} under {root}: {error}") from error
    return _prepared_records(file, root, folder)


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS builder of a published file, from `DownloadConfig.manual_dir` if there is one, else from the network.

    Not registered with TFDS, which has data sets of some of these names.
    """

    VERSION = tfds.core.Version("2.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "the file at `PublishedFile.url`, by one of `local_names`, plain or with gzip"

    def __init__(self, file: PublishedFile, data_dir: Path):
        self.file, self.name = file, file.name
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        # `dataset_info_from_configs` looks for metadata files that a builder in a single file doesn't have.
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.file.title}; each record as JSON",
            homepage=self.file.url,
            license=self.file.license,
            features=tfds.features.FeaturesDict({"record": tfds.features.Text()}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        try:
            manual_dir = dl_manager.manual_dir
        except AssertionError:  # so TFDS says that there is none
            content, where = _downloaded(self.file), self.file.url
        else:
            path = _local_file(self.file, manual_dir)
            content, where = path.read_bytes(), str(path)
        return {_TFDS_SPLIT: self._generate_examples(checked_records(self.file, content, where))}

    def _generate_examples(self, records: Iterable[Record]):
        for index, record in enumerate(records):
            yield index, {"record": json.dumps(record)}


def _prepared_records(file: PublishedFile, root: Path, folder: Path) -> list[Record]:
    try:
        source = Builder(file, root).as_data_source(split=_TFDS_SPLIT)
        records = [json.loads(stored["record"]) for stored in source.__getitems__(range(len(source)))]
    except Exception as error:  # TFDS and array_record raise many kinds for damaged files
        raise _damaged(folder, str(error)) from error
    if len(records) != len(checksums(file.name)[0]):
        raise _damaged(folder, f"it has {len(records)} records instead of {len(checksums(file.name)[0])}")
    return records


def _damaged(folder: Path, why: str) -> ValueError:
    return ValueError(f"the prepared data in {folder} is damaged: {why}. Delete that folder and run again")


def _local_file(file: PublishedFile, manual_dir: Path) -> Path:
    names = [name + suffix for name in file.local_names for suffix in ("", ".gz")]
    for folder in (manual_dir / file.folder, manual_dir):
        for name in names:
            if (folder / name).is_file():
                return folder / name
    state = "lacks" if manual_dir.is_dir() else "is not a folder; it should hold"
    raise FileNotFoundError(
        f"{file.title}: manual_dir {manual_dir} {state} {' or '.join(names)}, there or in its folder {file.folder}. "
        f"Download {file.url} into it, or correct --config.data.manual_dir"
    )


def _downloaded(file: PublishedFile) -> bytes:
    # Not with TFDS's downloader, which retries for more than three minutes without network, and keeps damaged files.
    try:
        with urllib.request.urlopen(file.url, timeout=_DOWNLOAD_TIMEOUT) as response:
            return response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(
            f"could not download {file.url}: {error}. Without network, put it as {file.local_names[0]} into a folder "
            "and pass --config.data.manual_dir=FOLDER"
        ) from error


@contextlib.contextmanager
def _quiet_unless_terminal() -> Iterator[None]:
    """Suppresses TFDS's output and progress bars in log files."""
    if sys.stderr.isatty():
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
