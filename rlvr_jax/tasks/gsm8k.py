"""GSM8K: 8,792 grade-school word problems (Cobbe et al. 2021, https://arxiv.org/abs/2110.14168), as a TFDS builder.

Read with `as_data_source`: random access, no TensorFlow. Every record is checked against the data set as published,
when it is prepared and again when it is read: `gsm8k_checksums.json` holds, for each line of the published files, the
first 4 hex digits of the line's SHA-256, which name the line that differs; the SHA-256 of the whole file decides.
A line is checked as JSON, serialised again as it was published, so that files which only differ in how the JSON is
written pass.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import json
import sys
import urllib.request
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from rlvr_jax.tasks.task import Example, Split, Task, place_of

SOURCE = (
    "https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"
    "/grade_school_math/data"
)
NUM_RECORDS = {"train": 7473, "test": 1319}
SHA256 = {
    "train": "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
    "test": "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
}
INSTRUCTION = "Reason step by step. Write the answer, a number, on the last line after ####."
_FILE_OF_SPLIT = {"train": "train", "heldout": "test"}
_DOWNLOAD_TIMEOUT = 60  # seconds


def gsm8k(data_dir: str = "", manual_dir: str = "", instruction: str = INSTRUCTION) -> Task:
    """GSM8K as a task: `train` is GSM8K's training set, `heldout` its test set.

    The prompt is the question, a line break, the instruction and a line break. The reference is the number after
    `####`, as written (`1,080`). The demonstration is the published solution, with its calculator annotations.

    Args:
      data_dir: the prepared data is kept under it; `~/tensorflow_datasets` if empty. Prepared if it isn't there yet.
      manual_dir: a folder with `train.jsonl` and `test.jsonl`, or both as `.jsonl.gz`: prepare from these instead of
        the network. Checked even if the data is prepared already.
      instruction: what the prompt says after the question.

    Raises:
      FileNotFoundError: `manual_dir` doesn't hold the files.
      ValueError: a file is damaged or differs from the published one, or the prepared data does.
      ConnectionError: the files could not be downloaded.
    """
    root = Path(data_dir or "~/tensorflow_datasets").expanduser()
    sources = _prepared(root, manual_dir)

    def record(split: Split, index: int) -> dict[str, str]:
        name = _FILE_OF_SPLIT[split]
        if not 0 <= index < NUM_RECORDS[name]:
            raise IndexError(f"gsm8k: {split} has the indices 0 to {NUM_RECORDS[name] - 1}, not {index}")
        try:
            stored = sources[name][index]
            fields = {key: stored[key].decode() for key in ("question", "answer")}
        except Exception as error:  # array_record raises many kinds for a damaged file
            raise _damaged(root, f"record {index} of {name}: {error}") from error
        if _line_checksum(_published_line(fields)) != _line_checksums(name)[index]:
            raise _damaged(root, f"record {index} of {name} is not the published one")
        return fields

    def example(split: Split, index: int) -> Example:
        fields = record(split, index)
        return Example(
            id=f"gsm8k/{split}/{index}",
            prompt=f"{fields['question']}\n{instruction}\n",
            reference=fields["answer"].rpartition("####")[2].strip(),
            task="gsm8k",
        )

    def demonstration(example: Example, index: int) -> str:
        del index  # each problem has one published solution
        return record(*place_of(example))["answer"]

    return Task("gsm8k", "gsm8k", example, lambda split: NUM_RECORDS[_FILE_OF_SPLIT[split]], demonstration)


class Gsm8k(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS builder, from the files in `DownloadConfig.manual_dir` if there is one, else from the network.

    Not registered with TFDS by its name, which belongs to a data set of theirs.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"train.jsonl and test.jsonl from {SOURCE}, plain or with gzip as .jsonl.gz"

    def _info(self) -> tfds.core.DatasetInfo:
        # `dataset_info_from_configs` looks for metadata files that a builder in a single file doesn't have.
        return tfds.core.DatasetInfo(
            builder=self,
            description="Grade-school mathematics word problems with worked solutions",
            homepage="https://github.com/openai/grade-school-math",
            license="MIT",
            features=tfds.features.FeaturesDict({"question": tfds.features.Text(), "answer": tfds.features.Text()}),
            disable_shuffling=True,  # record n stays line n of the published file
        )

    def _split_generators(self, dl_manager):
        try:
            manual_dir = dl_manager.manual_dir
        except AssertionError:  # so TFDS says that there is none
            return {name: self._generate_examples(_downloaded_lines(name), name, _url(name)) for name in NUM_RECORDS}
        files = {name: _manual_file(manual_dir, name) for name in NUM_RECORDS}
        return {name: self._generate_examples(_file_lines(path), name, path) for name, path in files.items()}

    def _generate_examples(self, lines: Iterable[bytes], name: str, where: str | Path):
        return enumerate(_checked_records(lines, name, where))


def _prepared(data_dir: Path, manual_dir: str) -> dict:
    """File name ('train', 'test') -> random-access source of its records, prepared first where needed."""
    manual = Path(manual_dir).expanduser()
    if manual_dir:
        # Before TFDS starts: its own message for a folder that isn't there speaks of something else.
        for name in NUM_RECORDS:
            path = _manual_file(manual, name)
            for _ in _checked_records(_file_lines(path), name, path):
                pass
    # TFDS writes into a folder `incomplete.*` and renames it at the end: what exists under the name is whole.
    folder = _folder(data_dir)
    if not folder.exists():
        config = tfds.download.DownloadConfig(manual_dir=manual if manual_dir else None, try_download_gcs=False)
        try:
            with _quiet_unless_terminal():
                _builder(data_dir).download_and_prepare(download_config=config)
        except ConnectionError:
            raise
        except OSError as error:
            if not folder.exists():  # else another process was faster
                raise OSError(f"could not prepare GSM8K under {data_dir}: {error}") from error
    try:
        builder = _builder(data_dir)
        sources = {name: builder.as_data_source(split=name) for name in NUM_RECORDS}
        lengths = {name: len(source) for name, source in sources.items()}
        for name, source in sources.items():
            source[lengths[name] - 1]  # opens the file
    except Exception as error:  # TFDS and array_record raise many kinds for damaged files
        raise _damaged(data_dir, str(error)) from error
    if lengths != NUM_RECORDS:
        raise _damaged(data_dir, f"it has {lengths} records instead of {NUM_RECORDS}")
    return sources


def _folder(data_dir: Path) -> Path:
    return data_dir / "gsm8k" / str(Gsm8k.VERSION)


def _damaged(data_dir: Path, why: str) -> ValueError:
    folder = _folder(data_dir)
    return ValueError(f"the prepared GSM8K in {folder} is damaged: {why}. Delete that folder and run again")


def _builder(data_dir: Path) -> Gsm8k:
    return Gsm8k(data_dir=data_dir, file_format="array_record")


def _url(name: str) -> str:
    return f"{SOURCE}/{name}.jsonl"


def _manual_file(manual_dir: Path, name: str) -> Path:
    for candidate in (manual_dir / f"{name}.jsonl", manual_dir / f"{name}.jsonl.gz"):
        if candidate.is_file():
            return candidate
    state = "lacks" if manual_dir.is_dir() else "is not a folder; it should hold"
    raise FileNotFoundError(
        f"GSM8K: manual_dir {manual_dir} {state} {name}.jsonl (or {name}.jsonl.gz). Download {_url(name)} into it, or "
        "correct --config.data.manual_dir"
    )


def _file_lines(path: Path) -> Iterator[bytes]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):  # noqa: B007 - the message below uses it
                yield line
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} can't be read after line {number}: {error}. Take the file again") from error


def _downloaded_lines(name: str) -> Iterator[bytes]:
    # Not with TFDS's downloader, which without network goes on trying for more than three minutes, and keeps what it
    # got although it may be damaged.
    try:
        with urllib.request.urlopen(_url(name), timeout=_DOWNLOAD_TIMEOUT) as response:
            content = response.read()
    except OSError as error:
        raise ConnectionError(
            f"could not download {_url(name)}: {error}. Without network, put train.jsonl and test.jsonl (or .jsonl.gz) "
            "into a folder and pass --config.data.manual_dir=FOLDER"
        ) from error
    yield from io.BytesIO(content)


def _checked_records(lines: Iterable[bytes], name: str, where: str | Path) -> Iterator[dict[str, str]]:
    """The records of the file `name`, each as soon as it is known to be the published one.

    Raises:
      ValueError: something differs; the message names the line.
    """
    again = f"Take the file again from {_url(name)}"
    expected = _line_checksums(name)
    whole = hashlib.sha256()
    number = 0
    for number, line in enumerate(lines, start=1):
        if number > len(expected):
            raise ValueError(f"{where}, line {number}: GSM8K's {name}.jsonl has {len(expected)} lines only. {again}")
        try:
            fields = json.loads(line)
            fields = {key: fields[key] for key in ("question", "answer")}
            published = _published_line(fields)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{where}, line {number}: no JSON record with question and answer. {again}") from error
        if _line_checksum(published) != expected[number - 1]:
            raise ValueError(
                f"{where}, line {number}: not line {number} of GSM8K's {name}.jsonl as published; it was edited, or a "
                f"line before it is missing or added. {again}"
            )
        whole.update(published)
        yield fields
    if number < len(expected):
        raise ValueError(f"{where} ends after line {number}, GSM8K's {name}.jsonl has {len(expected)} lines. {again}")
    if whole.hexdigest() != SHA256[name]:
        raise ValueError(f"{where}: the content is not that of GSM8K's {name}.jsonl as published. {again}")


def _published_line(fields: dict[str, str]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _line_checksum(published: bytes) -> str:
    return hashlib.sha256(published).hexdigest()[:4]


@functools.cache
def _line_checksums(name: str) -> list[str]:
    digits = json.loads(Path(__file__).with_name("gsm8k_checksums.json").read_text())[name]
    return [digits[start : start + 4] for start in range(0, len(digits), 4)]


@contextlib.contextmanager
def _quiet_unless_terminal() -> Iterator[None]:
    """TFDS prints and draws progress bars: keep that out of log files."""
    if sys.stderr.isatty():
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
