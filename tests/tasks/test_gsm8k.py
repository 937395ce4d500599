"""GSM8K: prepared by TFDS, checked against the published files line by line."""

import gzip
import json
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rlvr_jax.tasks import Example, Task, batch
from rlvr_jax.tasks import gsm8k as module
from rlvr_jax.tasks.gsm8k import gsm8k


@pytest.fixture(scope="module")
def lines(gsm8k_files: Path) -> dict[str, list[bytes]]:
    return {
        name: gzip.decompress((gsm8k_files / f"{name}.jsonl.gz").read_bytes()).splitlines()
        for name in ("train", "test")
    }


@pytest.fixture
def manual_dir(lines, tmp_path) -> Path:
    """A folder with both files, plain, for a test to damage."""
    folder = tmp_path / "manual"
    folder.mkdir()
    for name in lines:
        write(folder, name, lines[name])
    return folder


def write(folder: Path, name: str, lines: list[bytes]) -> None:
    (folder / f"{name}.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def refused(tmp_path: Path, manual_dir: Path, message: str) -> None:
    """Preparing fails with the message, and nothing is left that a later run would take for the data."""
    with pytest.raises(ValueError, match=message):
        gsm8k(str(tmp_path / "data"), str(manual_dir))
    assert not (tmp_path / "data" / "gsm8k" / "1.0.0").exists()


def test_counts_and_first_examples_are_the_published_ones(gsm8k_task: Task):
    assert (gsm8k_task.num_examples("train"), gsm8k_task.num_examples("heldout")) == (7473, 1319)
    example = gsm8k_task.example("train", 0)
    assert example.id == "gsm8k/train/0"
    assert example.prompt.startswith("Natalia sold clips to 48 of her friends in April, and")
    assert example.prompt.endswith(f"in April and May?\n{module.INSTRUCTION}\n")
    assert (example.reference, example.task) == ("72", "gsm8k")
    first = gsm8k_task.example("heldout", 0)
    assert first.prompt.startswith("Janet\N{RIGHT SINGLE QUOTATION MARK}s ducks lay 16 eggs per day.")
    assert (first.id, first.reference) == ("gsm8k/heldout/0", "18")


def test_every_example_is_its_line_of_the_file_with_its_own_answer(gsm8k_task: Task, lines):
    for split, name in (("train", "train"), ("heldout", "test")):
        for index, line in enumerate(lines[name]):
            published = json.loads(line)
            example = gsm8k_task.example(split, index)
            assert example.prompt == f"{published['question']}\n{module.INSTRUCTION}\n"
            assert gsm8k_task.demonstration(example, 0) == published["answer"]
            assert published["answer"].endswith("\n#### " + example.reference)
            assert re.fullmatch(r"-?[0-9]{1,3}(,?[0-9]{3})*", example.reference)


def test_batches_of_a_finite_task_are_examples_of_the_split(gsm8k_task: Task):
    examples = batch(gsm8k_task, "heldout", 0, 0, 1319)
    assert {example.id for example in examples} == {f"gsm8k/heldout/{index}" for index in range(1319)}


def test_preparing_shows_its_progress_on_a_terminal_only(capsys, monkeypatch):
    for terminal, seen in ((False, ""), (True, "progress\n")):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with module._quiet_unless_terminal():
            print("progress")
        assert capsys.readouterr().out == seen


@pytest.mark.parametrize(("split", "index"), [("train", 7473), ("heldout", 1319), ("train", -1)])
def test_an_index_outside_the_split_is_refused(gsm8k_task: Task, split, index):
    with pytest.raises(IndexError, match=f"{split} has the indices 0 to .*, not {index}"):
        gsm8k_task.example(split, index)


def test_published_and_compact_files_both_pass_and_nothing_is_printed(manual_dir, tmp_path, capfd, gsm8k_task: Task):
    # as published: spaces after the separators and \u escapes
    published = [
        json.dumps(json.loads(line)).encode() for line in (manual_dir / "test.jsonl").read_bytes().splitlines()
    ]
    write(manual_dir, "test", published)
    task = gsm8k(str(tmp_path / "data"), str(manual_dir))
    assert task.example("heldout", 5) == gsm8k_task.example("heldout", 5)
    assert capfd.readouterr() == ("", "")


def test_an_edited_line_is_named(manual_dir, tmp_path, lines):
    edited = list(lines["train"])
    edited[1233] = edited[1233].replace(b"#### ", b"#### 1")
    write(manual_dir, "train", edited)
    refused(
        tmp_path, manual_dir, r"manual/train\.jsonl, line 1234: not line 1234 of GSM8K's train\.jsonl.*Take the file"
    )


def test_an_edit_that_the_line_checksum_misses_is_refused_by_the_checksum_of_the_file(manual_dir, tmp_path, lines):
    fields = json.loads(lines["test"][7])
    expected = module._line_checksums("test")[7]
    variants = ({**fields, "question": fields["question"] + " " * count} for count in range(1, 1_000_000))
    same = next(variant for variant in variants if module._line_checksum(module._published_line(variant)) == expected)
    edited = list(lines["test"])
    edited[7] = json.dumps(same).encode()
    write(manual_dir, "test", edited)
    refused(tmp_path, manual_dir, r"manual/test\.jsonl: the content is not that of GSM8K's test\.jsonl")


def test_a_file_that_ends_early_is_refused_with_its_last_line(manual_dir, tmp_path, lines):
    write(manual_dir, "test", lines["test"][:1000])
    refused(tmp_path, manual_dir, r"test\.jsonl ends after line 1000, .* has 1319 lines")


def test_an_empty_file_is_refused(manual_dir, tmp_path):
    (manual_dir / "test.jsonl").write_bytes(b"")
    refused(tmp_path, manual_dir, r"test\.jsonl ends after line 0")


def test_a_missing_line_is_named(manual_dir, tmp_path, lines):
    write(manual_dir, "test", lines["test"][:99] + lines["test"][100:])
    refused(tmp_path, manual_dir, r"test\.jsonl, line 100: .* a line before it is missing or added")


def test_an_added_line_is_named(manual_dir, tmp_path, lines):
    write(manual_dir, "test", [*lines["test"], lines["test"][0]])
    refused(tmp_path, manual_dir, r"test\.jsonl, line 1320: .* has 1319 lines only")


@pytest.mark.parametrize("line", [b"", b"not JSON", b"[1]", b'{"question": "?"}', b'"question answer"', b"\xff"])
def test_a_line_that_is_no_record_is_named(manual_dir, tmp_path, lines, line):
    write(manual_dir, "test", [*lines["test"][:3], line, *lines["test"][4:]])
    refused(tmp_path, manual_dir, r"test\.jsonl, line 4: no JSON record with question and answer")


@pytest.mark.parametrize("damage", ["cut", "flipped", "not gzip"])
def test_a_damaged_gzip_file_is_refused_by_name(manual_dir, tmp_path, gsm8k_files, damage):
    content = bytearray((gsm8k_files / "train.jsonl.gz").read_bytes())
    if damage == "cut":
        content = content[:500_000]
    elif damage == "flipped":
        content[500_000] ^= 0xFF
    else:
        content = b"plain text"
    (manual_dir / "train.jsonl").unlink()
    (manual_dir / "train.jsonl.gz").write_bytes(content)
    refused(
        tmp_path, manual_dir, r"train\.jsonl\.gz(, line [0-9]+: | can't be read after line [0-9]+: ).*Take the file"
    )


def test_a_manual_dir_without_the_files_names_what_was_looked_for(tmp_path, manual_dir):
    with pytest.raises(
        FileNotFoundError, match=r"nowhere is not a folder; it should hold train\.jsonl \(or train\.jsonl\.gz\)"
    ):
        gsm8k(str(tmp_path / "data"), str(tmp_path / "nowhere"))
    (manual_dir / "test.jsonl").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"lacks test\.jsonl \(or test\.jsonl\.gz\).*--config\.data\.manual_dir"
    ):
        gsm8k(str(tmp_path / "data"), str(manual_dir))


def test_a_manual_dir_is_checked_even_if_the_data_is_prepared(gsm8k_data_dir, manual_dir, lines):
    write(manual_dir, "test", lines["test"][:10])
    with pytest.raises(ValueError, match="ends after line 10"):
        gsm8k(str(gsm8k_data_dir), str(manual_dir))


def test_a_data_dir_that_is_a_file_is_refused(tmp_path, gsm8k_files):
    (tmp_path / "data").write_text("")
    with pytest.raises(OSError, match=r"could not prepare GSM8K under .*data"):
        gsm8k(str(tmp_path / "data"), str(gsm8k_files))


def test_a_killed_preparation_is_not_taken_for_the_data(tmp_path, gsm8k_files, gsm8k_task: Task):
    data_dir = tmp_path / "data"
    program = f"""
import os, signal
from rlvr_jax.tasks import gsm8k
whole = gsm8k.Gsm8k._generate_examples
def killed(self, lines, name, where):
    for index, record in whole(self, lines, name, where):
        if name == "test" and index == 500:
            os.kill(os.getpid(), signal.SIGKILL)
        yield index, record
gsm8k.Gsm8k._generate_examples = killed
gsm8k.gsm8k({str(data_dir)!r}, {str(gsm8k_files)!r})
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    left = [path.name for path in (data_dir / "gsm8k").iterdir()]
    assert len(left) == 1
    assert left[0].startswith("incomplete.")
    task = gsm8k(str(data_dir), str(gsm8k_files))
    assert task.example("heldout", 1318) == gsm8k_task.example("heldout", 1318)


def damaged(name: str, gsm8k_data_dir: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the prepared data, and the path of its file of that name."""
    shutil.copytree(gsm8k_data_dir, tmp_path / "data")
    return tmp_path / "data", tmp_path / "data" / "gsm8k" / "1.0.0" / name


@pytest.mark.parametrize("name", ["gsm8k-train.array_record-00000-of-00001", "dataset_info.json"])
@pytest.mark.parametrize("keep", [0, 100])
def test_prepared_data_that_was_cut_is_refused_with_what_to_do(gsm8k_data_dir, tmp_path, name, keep):
    data_dir, path = damaged(name, gsm8k_data_dir, tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"gsm8k/1\.0\.0 is damaged: .* Delete that folder and run again"):
        gsm8k(str(data_dir))


def test_prepared_records_that_changed_are_refused_when_they_are_read(gsm8k_data_dir, tmp_path):
    data_dir, path = damaged("gsm8k-test.array_record-00000-of-00001", gsm8k_data_dir, tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    task = gsm8k(str(data_dir))
    with pytest.raises(ValueError, match=r"is damaged: record [0-9]+ of test"):
        batch(task, "heldout", 0, 0, 1319)


def test_a_record_in_the_place_of_another_is_refused(gsm8k_task: Task, monkeypatch):
    checksums = module._line_checksums("train")
    monkeypatch.setattr(module, "_line_checksums", lambda _name: checksums[1:])
    with pytest.raises(ValueError, match="record 0 of train is not the published one"):
        gsm8k_task.example("train", 0)


@pytest.fixture
def home(tmp_path, lines, monkeypatch):
    """A web server in the place of the data set's home; the folder that it serves."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            pass

    folder = tmp_path / "home"
    folder.mkdir()
    for name in lines:
        write(folder, name, lines[name])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    monkeypatch.setattr(module, "SOURCE", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("home")
def test_downloaded_files_make_the_same_task_as_local_ones(tmp_path, gsm8k_task: Task):
    task = gsm8k(str(tmp_path / "data"))
    assert task.example("train", 7472) == gsm8k_task.example("train", 7472)


def test_a_download_that_differs_is_refused_and_the_next_one_is_taken(home, tmp_path, lines):
    write(home, "train", lines["train"][:5000])
    with pytest.raises(ValueError, match=r"http://.*/train\.jsonl ends after line 5000"):
        gsm8k(str(tmp_path / "data"))
    write(home, "train", lines["train"])
    assert gsm8k(str(tmp_path / "data")).example("train", 0).reference == "72"


def test_without_network_and_files_the_error_says_how_to_pass_them(home, tmp_path):
    (home / "train.jsonl").unlink()
    with pytest.raises(ConnectionError, match=r"could not download http.*404.*--config\.data\.manual_dir=FOLDER"):
        gsm8k(str(tmp_path / "data"))


def test_a_refused_connection_is_reported_with_how_to_pass_files(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SOURCE", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ConnectionError, match=r"Connection refused.*--config\.data\.manual_dir=FOLDER"):
        gsm8k(str(tmp_path / "data"))


def test_reading_imports_neither_tensorflow_nor_torch(gsm8k_data_dir):
    program = (
        "import sys; from rlvr_jax.tasks import make_task; "
        f"print(make_task('gsm8k', data_dir={str(gsm8k_data_dir)!r}).example('train', 0).reference); "
        "assert not {'tensorflow', 'torch'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("72\n", "")


def test_a_demonstration_of_another_tasks_example_is_refused(gsm8k_task: Task):
    with pytest.raises(IndexError, match="not 99999"):
        gsm8k_task.demonstration(Example("modsum/train/99999", "1=", "1", "modsum"), 0)
