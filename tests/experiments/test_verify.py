"""The verify command and the records behind it: one line out for each line in, and the same verdict every time."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.verifiers import VERIFIERS, records, verify
from rlvr_jax.verifiers.pool import Job, Pool
from rlvr_jax.verifiers.records import LineError, Record, encode, judge_lines, line_batches, parse
from tests.experiments.runs import PATIENT, ROOT, error_of, run, wait_until

COUNTDOWN = {"numbers": [3, 5], "target": 8}
# (kind, lines that can be judged)
PAIRS = {
    "modsum": [{"id": i, "completion": f"{'4' * (i % 5)}#{6 + i % 2}", "reference": "7"} for i in range(50)],
    "countdown": [
        {"id": "right", "completion": "<answer>3+5</answer>", "reference": COUNTDOWN},
        {"id": "wrong", "completion": "<answer>3*5</answer>", "reference": COUNTDOWN},
        {"id": "deep", "completion": "(" * 10_000, "reference": COUNTDOWN},
        {"id": "not a reference", "completion": "3+5", "reference": {"numbers": "3, 5"}},
    ],
    "gsm8k": [
        {"id": 1.5, "completion": "so\n#### 1,080 eggs", "reference": "1080"},
        {"completion": "", "reference": "1"},
    ],
}
# what is wrong -> (the line, what its error says, the id that could be read)
BAD = {
    "no JSON": (b"nope", "not valid JSON: Expecting value", None),
    "a torn line": (b'{"completion": "#7", "ref', "not valid JSON", None),
    "empty": (b"", "empty", None),
    "blank": (b" \t\r", "empty", None),
    "a list": (b'["#7", "7"]', "not a JSON object but a list", None),
    "not UTF-8": (b'{"id": 1, "completion": "\xff", "reference": "7"}', "not UTF-8: byte 0xff at position 25", None),
    "no completion": (b'{"id": 2, "reference": "7"}', "field 'completion' is missing", 2),
    "no reference": (b'{"id": "a", "completion": "#7"}', "field 'reference' is missing", "a"),
    "a number for text": (b'{"id": 3, "completion": 7, "reference": "7"}', "completion is a int, not a string", 3),
    "null for text": (b'{"completion": null, "reference": "7"}', "completion is a NoneType", None),
    "an id that is a list": (b'{"id": [1], "completion": "#7", "reference": "7"}', "id is a list", None),
    "an id that is a truth": (b'{"id": true, "completion": "#7", "reference": "7"}', "id is a bool", None),
    "NaN": (b'{"id": NaN, "completion": "#7", "reference": "7"}', "not valid JSON: NaN is not a finite number", None),
    "a number too large": (b'{"id": 1e999, "completion": "#7", "reference": "7"}', "1e999 is not a finite", None),
    "too many digits": (b'{"id": ' + b"9" * 5000 + b"}", "not valid JSON", None),
    "too deep": (b"[" * 100_000, "nested too deeply", None),
}


def line(**fields) -> bytes:
    return json.dumps(fields).encode()


def verify_command(kind: str, source, target, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "experiments.verify",
        f"--kind={kind}",
        f"--input={source}",
        f"--output={target}",
        *more,
    ]


@pytest.fixture(scope="module")
def here():
    with Pool(0) as pool:
        yield pool


@pytest.mark.parametrize("what", BAD)
def test_a_bad_line_gets_an_error_with_its_number_and_its_neighbours_are_judged(what, here):
    bad, message, id = BAD[what]
    good = line(id=7, completion="#7", reference="7")
    first, second, third = judge_lines(here, "modsum", [good, bad, good], first=41)
    assert (first["score"], third["score"], first["id"], third["id"]) == (1.0, 1.0, 7, 7)
    error = second.pop("error")
    assert error.startswith("line 42: ")
    assert message in error
    assert second == {"id": id, "score": 0.0, "parts": {}, "answer": None, "reason": ""}


def test_the_examples_of_the_documentation_are_right(here):
    text = (ROOT / "docs" / "verifiers.md").read_text(encoding="utf-8")
    sections = re.split(r"^### `(\w+)`$", text, flags=re.MULTILINE)[1:]
    kinds = dict(zip(sections[::2], sections[1::2], strict=True))
    assert set(kinds) == set(VERIFIERS)
    for kind, section in kinds.items():
        given, expected = (
            block.splitlines() for block in re.findall(r"^```json\n(.*?)^```$", section, re.DOTALL | re.M)
        )
        options = re.search(r"--options='(.*)'", section)
        got = judge_lines(here, kind, [each.encode() for each in given], json.loads(options[1]) if options else None)
        # Reasons are for people; their wording may change.
        assert [each | {"reason": ""} for each in got] == [json.loads(each) | {"reason": ""} for each in expected]


def test_the_python_of_the_documentation_runs(capsys):
    text = (ROOT / "docs" / "verifiers.md").read_text(encoding="utf-8")
    judging, submitting = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.M)
    names = {}
    exec(judging, names)
    assert [verdict.score for verdict in names["verdicts"]] == [0.0, 1.0]
    exec(submitting, names)
    assert (names["right"].result().score, names["factorial"].result()) == (1.0, 2432902008176640000)
    assert capsys.readouterr().out == "ValueError: math domain error\n"


def test_an_output_record_holds_the_verdict_under_the_public_names(here):
    (record,) = judge_lines(here, "gsm8k", [line(id="x", completion="#### 18", reference="18", prompt="ignored")])
    assert json.loads(encode(record)) == {
        "id": "x",
        "score": 1.0,
        "parts": {"format": 1.0},
        "answer": "18",
        "reason": "right",
        "error": None,
    }


def test_a_reference_that_the_kind_does_not_take_is_an_error_of_that_line(here):
    (record,) = judge_lines(here, "countdown", [line(id=1, completion="3+5", reference="3, 5")])
    assert (record["id"], record["score"]) == (1, 0.0)
    assert record["error"].startswith("ValueError: the reference of a countdown example is")


def test_a_record_passes_every_text_and_every_kind_of_id_through():
    for id in ("", "é\n", "\ud800", 0, -(2**70), 2.5, None):
        text = "\ud800 \0 \u2028 \U0001f600"
        assert parse(line(id=id, completion=text, reference=[text, None])) == Record(text, [text, None], id)
    assert parse(b'\xef\xbb\xbf{"completion": "a", "reference": null}\r') == Record("a", None)  # from Windows


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_give_one_record_and_never_an_exception(data):
    with Pool(0) as pool:
        (record,) = judge_lines(pool, "modsum", [data])
    assert record["score"] == 0.0
    assert record["error"].startswith("line 1: ")


@given(
    st.lists(st.binary(max_size=30).filter(lambda data: b"\n" not in data), max_size=20),
    st.booleans(),
    st.integers(1, 40),
)
@settings(max_examples=200, deadline=None)
def test_lines_are_those_of_the_file_however_it_is_read(lines, ends, size):
    class Trickle(io.BytesIO):
        def read1(self, _limit):
            return super().read1(size)

    data = b"\n".join(lines) + (b"\n" if lines and ends else b"")
    expected = data.split(b"\n")[: None if data and not data.endswith(b"\n") else -1]
    assert [each for batch in line_batches(Trickle(data)) for each in batch] == expected


def test_a_line_too_long_for_memory_is_skipped_and_the_next_one_is_read(monkeypatch):
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(records, "BATCH_BYTES", 7)
    data = b"a" * 100 + b"\n" + b"b" * 101 + b"\n" + b"c\n" + b"d" * 1000
    assert [each for batch in line_batches(io.BytesIO(data)) for each in batch] == [b"a" * 100, None, b"c", None]
    with pytest.raises(LineError, match="longer than 100 bytes"):
        parse(None)


def test_batches_are_bounded_so_that_memory_does_not_grow_with_the_file():
    class Endless(io.RawIOBase):
        served = 0

        def read1(self, limit):
            self.served += 1
            return b"0123456\n" * (limit // 8)

    batches = line_batches(Endless())
    sizes = {len(next(batches)) for _ in range(1000)}
    assert max(sizes) == records.BATCH_LINES


def test_a_verdict_depends_on_its_line_alone_not_on_workers_nor_order(here):
    shuffled = random.Random(0)
    with Pool(1, PATIENT) as one, Pool(3, PATIENT) as three:
        for kind, pairs in PAIRS.items():
            lines = [line(**pair) for pair in pairs]
            expected = judge_lines(here, kind, lines)
            for pool in (one, three):
                assert judge_lines(pool, kind, lines) == expected
                order = shuffled.sample(range(len(lines)), len(lines))
                assert judge_lines(pool, kind, [lines[i] for i in order]) == [expected[i] for i in order]
    assert [record["score"] for record in expected] == [1.0, 0.0]


def test_records_agree_with_verify_and_with_the_pool(here):
    for kind, pairs in PAIRS.items():
        got = judge_lines(here, kind, [line(**pair) for pair in pairs])
        verdicts = here.judge([Job(kind, pair["completion"], pair["reference"]) for pair in pairs])
        assert verdicts == [verify(kind, pair["completion"], pair["reference"]) for pair in pairs]
        assert [(r["score"], r["answer"], r["error"]) for r in got] == [(v.score, v.answer, v.error) for v in verdicts]


def test_the_command_writes_a_line_for_each_line_and_ends_with_status_0(tmp_path):
    source, target = tmp_path / "pairs.jsonl", tmp_path / "verdicts.jsonl"
    lines = []
    for bad, _, _ in BAD.values():
        lines += [line(id=len(lines), completion=f"#{len(lines) % 10}", reference="4"), bad]
    source.write_bytes(b"\n".join(lines))
    target.write_text("old\n")
    status, stdout, stderr = run(verify_command("modsum", source, target, "--workers=1"))
    assert (status, stdout) == (0, "")
    got = [json.loads(each) for each in target.read_text().splitlines()]
    counts = f"{len(lines)} lines, {len(BAD)} of them with an error, mean score of the others 0.1875"
    assert stderr == f"{counts}; the first is {next(x['error'] for x in got if x['error'])}\n"
    with Pool(0) as pool:
        assert got == judge_lines(pool, "modsum", lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl", "verdicts.jsonl"]


def test_a_program_at_the_other_end_of_a_pipe_gets_each_verdict_when_it_has_sent_the_line():
    with subprocess.Popen(
        verify_command("modsum", "-", "-", "--workers=1"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        for digit in range(3):
            process.stdin.write(line(id=digit, completion=f"#{digit}", reference="1") + b"\n")
            process.stdin.flush()
            record = json.loads(process.stdout.readline())
            assert (record["id"], record["score"]) == (digit, float(digit == 1))
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.stderr.read() == b"3 lines, 0 of them with an error, mean score 0.3333\n"
        assert process.wait(PATIENT) == 0


def test_an_interrupted_command_keeps_what_it_has_under_another_name(tmp_path):
    target, partial = tmp_path / "verdicts.jsonl", tmp_path / "verdicts.jsonl.partial"
    target.write_text("old\n")
    process = subprocess.Popen(
        verify_command("modsum", "-", target, "--workers=1"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdin.write('{"completion": "#7", "reference": "7"}\n')
    process.stdin.flush()
    wait_until(lambda: partial.exists() and partial.read_text().endswith("\n"))
    process.send_signal(signal.SIGINT)
    process.wait(PATIENT)
    outcome = (process.returncode, process.stdout.read(), process.stderr.read())
    process.stdin.close()
    message = error_of(outcome, 130)
    assert message.startswith("error: interrupted after ")
    assert message.endswith(f" lines; their verdicts are in {partial}")
    assert target.read_text() == "old\n"
    assert json.loads(partial.read_text())["score"] == 1.0


def test_an_output_that_is_no_file_is_written_to_and_a_link_is_followed(tmp_path):
    source, target, link, pipe = (tmp_path / x for x in ("pairs.jsonl", "verdicts.jsonl", "link.jsonl", "pipe"))
    source.write_bytes(line(completion="#7", reference="7"))
    link.symlink_to(target)
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for output in (link, pipe):
        assert run(verify_command("modsum", source, output, "--workers=0"))[0] == 0
    assert link.is_symlink()
    assert pipe.is_fifo()
    assert os.read(reader, 1 << 16) == target.read_bytes() != b""
    os.close(reader)


WRONG = {
    "an unknown kind": (["--kind=maths"], r"--kind: there is no verifier 'maths'; the kinds are modsum"),
    "an absent input": (["--input=absent.jsonl"], r"--input=absent.jsonl: No such file"),
    "a folder as input": (["--input=."], r"--input=.: Is a directory"),
    "an output without a folder": (["--output=absent/verdicts.jsonl"], r"--output=absent/verdicts.jsonl: can't write"),
    "a folder as output": (["--output=."], r"--output=. is a folder"),
    "input and output the same": (["--input=setup.py", "--output=./setup.py"], r"would overwrite --input=setup.py"),
    "the unfinished output as input": (
        ["--input=setup.py.partial", "--output=setup.py"],
        r"would overwrite --input=set",
    ),
    "options that are not valid JSON": (["--options={tolerance: 1}"], r"--options=.* not valid JSON"),
    "options that are a list": (["--options=[1]"], r"not a JSON object"),
    "an unknown option": (
        ['--options={"tolerance": 1}'],
        r"unexpected keyword argument 'tolerance'; modsum takes none",
    ),
    "a function of one argument": (["--kind=operator:neg"], r"'operator:neg' .*must take \(completion, reference\)"),
    "too few workers": (["--workers=-1"], r"workers must be 0 or more"),
    "too little time": (["--timeout=0"], r"timeout must be a number of seconds, at least 0\.01"),
    "too little memory": (["--memory_mib=1"], r"memory_bytes must be at least"),
}


def test_a_command_line_that_can_not_run_is_one_line_before_any_work(tmp_path):
    target = tmp_path / "verdicts.jsonl"
    usual = ["--options={}", "--workers=1", "--timeout=1", "--memory_mib=500"]
    for more, message in WRONG.values():
        outcome = run(verify_command("modsum", "/dev/null", target, *usual, *more))
        assert re.search(message, error_of(outcome, 2)), outcome
    assert list(tmp_path.iterdir()) == []
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_text("{}")
    outcome = run(verify_command("modsum", "/dev/null", tmp_path / "metrics.jsonl"))
    assert "metrics.jsonl, of the run" in error_of(outcome, 2)


def test_an_unknown_kind_and_a_missing_flag_end_the_command_with_status_2(tmp_path):
    assert "no verifier 'maths'" in error_of(run(verify_command("maths", "-", tmp_path / "verdicts.jsonl")), 2)
    line = [sys.executable, "-m", "experiments.verify", "--kind=modsum", "--input=-"]
    assert "--output must be given" in error_of(run(line), 2)


def test_a_reader_that_goes_away_ends_the_command_with_one_line(tmp_path):
    source = tmp_path / "pairs.jsonl"
    source.write_bytes((line(completion="#7", reference="7") + b"\n") * 20_000)
    with subprocess.Popen(
        verify_command("modsum", source, "-", "--workers=0"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        message = process.stderr.read()
        assert process.wait(PATIENT) == 1
    assert message.startswith("error: after ")
    assert message.endswith("output has gone\n")
