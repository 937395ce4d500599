"""Files are checked against the data sets as published: what differs is refused by name and line."""

import dataclasses
import gzip
import hashlib
import json
import random
from pathlib import Path

import pytest

from rlvr_jax.tasks import arc_agi, countdown_tinyzero, gsm8k, humaneval, ifeval, math, mbpp, published
from rlvr_jax.tasks.published import PublishedFile, checked_records
from tests.data.read import lines_of

# The published file, and its place in the folder of the data sets.
FILES = {
    "gsm8k_train": (gsm8k.TRAIN, "gsm8k/train.jsonl"),
    "gsm8k_test": (gsm8k.TEST, "gsm8k/test.jsonl"),
    "math_train": (math.TRAIN, "math/train_12k.jsonl"),
    "mbpp": (mbpp.FULL, "mbpp/mbpp.jsonl"),
    "mbpp_sanitized": (mbpp.SANITIZED, "mbpp/sanitized-mbpp.jsonl"),
    "humaneval": (humaneval.PROBLEMS, "humaneval/HumanEval.jsonl"),
    "ifeval": (ifeval.PROMPTS, "ifeval/prompts.jsonl"),
    "countdown_tinyzero": (countdown_tinyzero.PROBLEMS, "countdown/train.jsonl"),
    "arc_agi": (arc_agi.TASKS, "arc_agi1/tasks.jsonl"),
}
# Of the whole files.
COUNTS = {
    "gsm8k_train": 7473,
    "gsm8k_test": 1319,
    "math_train": 12000,
    "mbpp": 974,
    "mbpp_sanitized": 427,
    "humaneval": 164,
    "ifeval": 541,
    "countdown_tinyzero": 8001,
    "arc_agi": 800,
}


@pytest.fixture(scope="module")
def lines(data_sets):
    """name of FILES -> the lines of the copy."""
    return {name: lines_of(data_sets / path) for name, (_, path) in FILES.items()}


def true_checksums(name: str) -> dict[str, int]:
    """Checksum -> index in the whole file, whatever files the tests read."""
    digits = json.loads(Path(published.__file__).with_name("checksums.json").read_text())[name]["records"]
    return {digits[start : start + 8]: start // 8 for start in range(0, len(digits), 8)}


@pytest.mark.parametrize("name", FILES)
def test_the_copies_hold_published_records_in_their_published_order(data_sets, name):
    assert data_sets
    known, read = true_checksums(name), published.checksums(name)[0]
    assert len(known) == COUNTS[name]
    places = [known[digits] for digits in read]
    assert places == sorted(places)
    assert len(places) > 20


@pytest.mark.whole
@pytest.mark.parametrize("name", FILES)
def test_the_whole_files_have_the_published_counts(lines, name):
    assert len(lines[name]) == len(published.checksums(name)[0]) == COUNTS[name]


def refused(file: PublishedFile, lines: list[bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_records(file, b"\n".join(lines) + b"\n", "dir/copy.jsonl")


def edited(value):
    """The value with the least possible edit at its end."""
    if isinstance(value, str):
        return value + " "
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return [*value[:-1], edited(value[-1])] if value else [0]
    if isinstance(value, dict):
        *_, last = value or {"": None}
        return {**value, last: edited(value.get(last))}
    return 1


@pytest.mark.parametrize("name", FILES)
def test_the_real_records_pass_in_any_order_and_way_of_writing_json_and_come_in_one_order(lines, name):
    file = FILES[name][0]
    records = checked_records(file, b"\n".join(lines[name]) + b"\n", name)
    assert len(records) == len(lines[name])
    assert all(tuple(record) == file.fields for record in records)
    rewritten = [json.dumps(json.loads(line), sort_keys=name != "arc_agi", ensure_ascii=False) for line in lines[name]]
    random.Random(0).shuffle(rewritten)
    if name != "ifeval":  # in which the order of keyword arguments is part of the record
        assert checked_records(file, "\n".join(rewritten).encode(), name) == records
    as_array = f"[{','.join(rewritten)}]".encode()
    if name == "mbpp_sanitized":  # published as an array
        assert checked_records(file, as_array, name) == records


@pytest.mark.parametrize("name", FILES)
def test_an_edit_of_any_field_is_refused_with_its_line(lines, name):
    file, _ = FILES[name]
    record = json.loads(lines[name][-1])
    kept = [field for field in file.fields if field != "unique_id"]  # MATH's own, which only orders records
    for field in kept:
        line = json.dumps({**record, field: edited(record[field])}).encode()
        refused(
            file,
            # the lines between are left out to save time: an edit is found before a gap is
            [*lines[name][:2], line],
            r"dir/copy\.jsonl, line 3: not a record of .* as published; it was edited\. Take the file",
        )


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_ends_early_is_refused_with_its_last_line(lines, name):
    refused(
        FILES[name][0],
        lines[name][:19],
        rf"dir/copy\.jsonl ends after line 19, .* has {len(lines[name])} records; number [0-9]+ is missing",
    )


def test_a_missing_record_is_named(lines):
    without = lines["gsm8k_test"][:30] + lines["gsm8k_test"][31:]
    count = len(lines["gsm8k_test"])
    refused(
        gsm8k.TEST,
        without,
        rf"ends after line {count - 1}, GSM8K's test\.jsonl has {count} records; number 31 is missing",
    )


def test_a_record_that_comes_twice_is_refused_with_both_lines(lines):
    all_and_first = [*lines["gsm8k_test"], lines["gsm8k_test"][0]]
    refused(gsm8k.TEST, all_and_first, f"line {len(all_and_first)}: the same record as line 1")


def test_an_empty_file_is_refused(lines):
    message = rf"copy is empty, GSM8K's test\.jsonl has {len(lines['gsm8k_test'])} records"
    with pytest.raises(ValueError, match=message):
        checked_records(gsm8k.TEST, b"", "copy")


@pytest.mark.parametrize("line", [b"not JSON", b"[1]", b'{"question": "?"}', b'"question answer"', b"\xff", b"3"])
def test_a_line_that_is_no_record_is_named(lines, line):
    message = r"dir/copy\.jsonl, line 4: not (JSON|UTF-8|a JSON record with question, answer)\. Take the file again"
    refused(gsm8k.TEST, [*lines["gsm8k_test"][:3], line, *lines["gsm8k_test"][4:]], message)


def test_a_file_of_another_data_set_is_refused(lines):
    refused(math.TRAIN, lines["gsm8k_train"], "line 1: not a JSON record with problem, solution, answer")


def test_a_broken_array_is_refused(lines):
    with pytest.raises(ValueError, match=r"copy, not JSON: .* line 1 column .*Take the file"):
        checked_records(mbpp.SANITIZED, b"[" + b",".join(lines["mbpp_sanitized"][:3]), "copy")


@pytest.mark.parametrize("damage", ["cut", "flipped", "header"])
def test_a_damaged_gzip_file_is_refused_with_the_last_line_that_could_be_read(lines, damage):
    content = bytearray(gzip.compress(b"\n".join(lines["gsm8k_train"]) + b"\n"))
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content[2] ^= 0xFF
    with pytest.raises(ValueError, match=r"copy can't be read after line [0-9]+: .*Take the file"):
        checked_records(gsm8k.TRAIN, bytes(content), "copy")


def test_an_edit_that_the_checksum_of_the_record_misses_is_refused_by_that_of_the_file(lines, monkeypatch):
    # As if the edited text had the first digits of the published text's checksum.
    record = json.loads(lines["humaneval"][7])
    edit = {field: record[field] + " " for field in humaneval.PROBLEMS.fields}
    digits = hashlib.sha256(json.dumps(edit).encode()).hexdigest()[:8]
    expected, whole = published.checksums("humaneval")
    by_chance = {digits if index == 7 else checksum: index for checksum, index in expected.items()}
    monkeypatch.setattr(published, "checksums", lambda _name: (by_chance, whole))
    copy = [*lines["humaneval"][:7], json.dumps(edit).encode(), *lines["humaneval"][8:]]
    refused(humaneval.PROBLEMS, copy, r"copy\.jsonl: the content is not that of HumanEval\.jsonl as published")


def test_a_file_with_the_published_sha256_passes_and_is_put_into_the_order_of_its_key(lines):
    # PRM800K's own files may write a record in another way than the original MATH.
    copy = [json.dumps({**json.loads(line), "answer": "?"}).encode() for line in lines["math_train"][:20]]
    content = b"\n".join(reversed(copy))
    refused(math.TRAIN, copy, "line 1: not a record of MATH's train.jsonl")
    known = dataclasses.replace(math.TRAIN, sha256=hashlib.sha256(content).hexdigest())
    ids = [record["unique_id"] for record in checked_records(known, content, "copy")]
    assert len(ids) == 20
    assert ids == sorted(ids)


def test_the_500_and_the_12000_problems_of_math_are_different_ones():
    train, test = (true_checksums(file.name) for file in (math.TRAIN, math.TEST))
    assert (len(train), len(test)) == (12000, 500)
    assert not train.keys() & test.keys()
