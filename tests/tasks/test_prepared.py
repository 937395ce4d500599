"""Data sets are prepared once, whole or not at all, from local files or their public home."""

import dataclasses
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rlvr_jax.tasks import prepared, published
from rlvr_jax.tasks.humaneval import PROBLEMS
from rlvr_jax.tasks.prepared import load
from tests.data.read import rows


@pytest.fixture(scope="module")
def folder(data_sets) -> Path:
    return data_sets / "humaneval"


@pytest.fixture(scope="module")
def data_dir(folder, tmp_path_factory) -> Path:
    """A data_dir in which HumanEval is prepared. Not to be changed."""
    path = tmp_path_factory.mktemp("prepared")
    load(PROBLEMS, str(path), str(folder))
    return path


@pytest.fixture(scope="module")
def records(data_dir):
    return load(PROBLEMS, str(data_dir))


def test_records_are_those_of_the_file(records, folder):
    assert [record["task_id"] for record in records] == [row["task_id"] for row in rows(folder / "HumanEval.jsonl")]
    assert records[0]["entry_point"] == "has_close_elements"


def test_the_file_may_lie_in_the_folder_or_in_the_data_sets_own_folder_in_it(tmp_path, folder, data_sets, records):
    assert load(PROBLEMS, str(tmp_path / "a"), str(folder)) == records
    assert load(PROBLEMS, str(tmp_path / "b"), str(data_sets)) == records


def test_preparing_prints_nothing_into_log_files_and_shows_progress_on_a_terminal(tmp_path, folder, capfd, monkeypatch):
    load(PROBLEMS, str(tmp_path), str(folder))
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with prepared._quiet_unless_terminal():
        print("progress")
    assert capfd.readouterr().out == "progress\n"


def test_a_refused_file_leaves_nothing_that_a_later_run_would_take_for_the_data(tmp_path, folder, records):
    manual = tmp_path / "manual"
    manual.mkdir()
    lines = (folder / "HumanEval.jsonl").read_bytes().splitlines(keepends=True)
    (manual / "HumanEval.jsonl").write_bytes(b"".join(lines[:30]))
    with pytest.raises(ValueError, match=r"manual/HumanEval\.jsonl ends after line 30"):
        load(PROBLEMS, str(tmp_path / "data"), str(manual))
    (manual / "HumanEval.jsonl").write_bytes(b"".join(lines))
    assert load(PROBLEMS, str(tmp_path / "data"), str(manual)) == records


def test_a_manual_dir_without_the_file_names_what_was_looked_for(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"HumanEval\.jsonl: manual_dir .*nowhere is not a folder; it should hold HumanEval\.jsonl or "
        r"HumanEval\.jsonl\.gz, there or in its folder humaneval\. Download https://.*--config\.data\.manual_dir",
    ):
        load(PROBLEMS, str(tmp_path / "data"), str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"lacks HumanEval\.jsonl or HumanEval\.jsonl\.gz"):
        load(PROBLEMS, str(tmp_path / "data"), str(tmp_path))


def test_a_manual_dir_is_checked_even_if_the_data_is_prepared(data_dir, tmp_path):
    (tmp_path / "HumanEval.jsonl").write_bytes(b"{}\n")
    with pytest.raises(ValueError, match="line 1: not a JSON record with task_id"):
        load(PROBLEMS, str(data_dir), str(tmp_path))


def test_a_data_dir_that_is_a_file_is_refused(tmp_path, folder):
    (tmp_path / "data").write_text("")
    with pytest.raises(OSError, match=r"could not prepare HumanEval\.jsonl under .*data"):
        load(PROBLEMS, str(tmp_path / "data"), str(folder))


def test_a_killed_preparation_is_not_taken_for_the_data(tmp_path, folder, records):
    program = f"""
import os, pathlib, signal
from rlvr_jax.tasks import humaneval, prepared, published
published.CHECKSUMS = pathlib.Path({str(published.CHECKSUMS)!r})
def killed(self, records):
    for index in range(100):
        yield index, {{"record": "{{}}"}}
    os.kill(os.getpid(), signal.SIGKILL)
prepared.Builder._generate_examples = killed
prepared.load(humaneval.PROBLEMS, {str(tmp_path)!r}, {str(folder)!r})
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    left = [path.name for path in (tmp_path / "humaneval").iterdir()]
    assert len(left) == 1
    assert left[0].startswith("incomplete.")
    assert load(PROBLEMS, str(tmp_path), str(folder)) == records


@pytest.mark.parametrize("name", ["humaneval-records.array_record-00000-of-00001", "dataset_info.json"])
@pytest.mark.parametrize("damage", ["empty", "cut", "changed"])
def test_prepared_data_that_is_damaged_is_refused_with_what_to_do(data_dir, tmp_path, name, damage):
    shutil.copytree(data_dir, tmp_path / "data")
    path = tmp_path / "data" / "humaneval" / "2.0.0" / name
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[len(content) // 2 :] = b"\xff" * (len(content) - len(content) // 2)
    else:
        del content[0 if damage == "empty" else 100 :]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"humaneval/2\.0\.0 is damaged: .*\. Delete that folder and run again"):
        load(PROBLEMS, str(tmp_path / "data"))


def test_a_single_bit_that_changed_in_the_prepared_data_is_noticed(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "data")
    path = tmp_path / "data" / "humaneval" / "2.0.0" / "humaneval-records.array_record-00000-of-00001"
    content = path.read_bytes()
    end = content.index(bytes(1000))  # of the records; padding comes after it
    assert end > 10_000
    for place in range(1000, end, end // 10):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ValueError, match="is damaged"):
            load(PROBLEMS, str(tmp_path / "data"))


@pytest.fixture
def home(tmp_path, folder, monkeypatch):
    """The published file with its home on a web server of the test, and the folder that this serves."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_args):
            pass

    served = tmp_path / "home"
    shutil.copytree(folder, served)
    (served / "HumanEval.jsonl").chmod(0o644)
    served.chmod(0o755)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=served))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield dataclasses.replace(PROBLEMS, url=f"http://127.0.0.1:{server.server_port}/HumanEval.jsonl"), served
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_makes_the_same_records_as_a_local_file(home, tmp_path, records):
    file, _ = home
    assert load(file, str(tmp_path / "data")) == records


def test_a_download_that_differs_is_refused_and_the_next_one_is_taken(home, tmp_path, records):
    file, served = home
    whole = (served / "HumanEval.jsonl").read_bytes()
    (served / "HumanEval.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:30]))
    with pytest.raises(ValueError, match=r"http://.*/HumanEval\.jsonl ends after line 30"):
        load(file, str(tmp_path / "data"))
    (served / "HumanEval.jsonl").write_bytes(whole)
    assert load(file, str(tmp_path / "data")) == records


def test_without_network_and_files_the_error_says_how_to_pass_them(home, tmp_path):
    file, served = home
    (served / "HumanEval.jsonl").unlink()
    with pytest.raises(ConnectionError, match=r"could not download http.*404.*HumanEval\.jsonl into a folder.*FOLDER"):
        load(file, str(tmp_path / "data"))
    closed = dataclasses.replace(file, url="http://127.0.0.1:1")
    with pytest.raises(ConnectionError, match=r"Connection refused.*--config\.data\.manual_dir=FOLDER"):
        load(closed, str(tmp_path / "data"))
