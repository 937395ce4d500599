"""Tasks of one's own: what files may hold, how they are divided, and what is wrong with a record, by its line."""

import datetime
import json
import re

import pyarrow
import pyarrow.parquet
import pytest

from rlvr_jax.tasks import file_task, modsum, rendered, shots_of, worded
from rlvr_jax.tasks.table import read, splits_of

RECORDS = [{"question": f"Double {i}, please.", "answer": str(2 * i), "level": i % 3} for i in range(40)]


def jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def task(file, prompt="question", reference="answer", **options):
    return file_task("mine", str(file), prompt, reference, "math", **options)


def problems(made):
    return {
        split: [(e.prompt, e.reference) for i in range(made.num_examples(split)) for e in [made.example(split, i)]]
        for split in ("train", "heldout")
    }


def write_all(folder):
    """The same records in every kind of file."""
    table = pyarrow.Table.from_pylist(RECORDS)
    pyarrow.parquet.write_table(table, folder / "a.parquet")
    with pyarrow.OSFile(str(folder / "a.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    lines = ["question,answer,level"] + [f'"{r["question"]}",{r["answer"]},{r["level"]}' for r in RECORDS]
    (folder / "a.csv").write_bytes("\r\n".join(["\ufeff" + lines[0], *lines[1:], ""]).encode())
    (folder / "a.json").write_text(json.dumps(RECORDS))
    jsonl(folder / "a.jsonl", RECORDS)
    with (folder / "a.jsonl").open("a") as file:
        file.write("\n\n")


def test_every_kind_of_file_gives_the_same_problems(tmp_path):
    write_all(tmp_path)
    found = {kind: problems(task(tmp_path / f"a.{kind}")) for kind in ("jsonl", "json", "csv", "parquet", "arrow")}
    assert all(value == found["jsonl"] for value in found.values())
    assert sorted(found["csv"]["train"] + found["csv"]["heldout"]) == sorted(
        (record["question"], record["answer"]) for record in RECORDS
    )


def test_the_held_out_share_is_by_prompt_and_stays_when_problems_are_added(tmp_path):
    repeated = [record | {"question": record["question"].replace(" ", "  ")} for record in RECORDS]
    some = problems(task(jsonl(tmp_path / "a.jsonl", RECORDS + repeated), heldout_share=0.3))
    words = {split: {" ".join(prompt.split()) for prompt, _ in found} for split, found in some.items()}
    assert not words["train"] & words["heldout"]
    assert 4 <= len(words["heldout"]) <= 20
    fewer = problems(task(jsonl(tmp_path / "b.jsonl", RECORDS[:20]), heldout_share=0.3))
    assert {prompt for prompt, _ in fewer["heldout"]} <= words["heldout"]


@pytest.mark.parametrize(("count", "share", "heldout"), [(2, 0.01, 1), (5, 0.0, 0), (1, 0.5, 0)])
def test_a_small_file_has_a_held_out_problem_unless_it_can_spare_none(count, share, heldout, tmp_path):
    made = task(jsonl(tmp_path / "a.jsonl", RECORDS[:count]), heldout_share=share)
    assert (made.num_examples("train"), made.num_examples("heldout")) == (count - heldout, heldout)


def test_a_held_out_file_is_held_out_and_may_share_no_prompt(tmp_path):
    train, other = jsonl(tmp_path / "train.jsonl", RECORDS[:30]), jsonl(tmp_path / "other.jsonl", RECORDS[30:])
    made = task(train, heldout_file=other)
    assert (made.num_examples("train"), made.num_examples("heldout")) == (30, 10)
    jsonl(tmp_path / "other.jsonl", [*RECORDS[30:], RECORDS[7] | {"question": "Double 7,\nplease. "}])
    with pytest.raises(ValueError, match=r"other\.jsonl, line 11: .* training prompt, too: .*train\.jsonl, line 8"):
        task(train, heldout_file=other)
    with pytest.raises(ValueError, match=r"none\.jsonl holds no held-out problem"):
        task(train, heldout_file=jsonl(tmp_path / "none.jsonl", []))


def test_columns_that_are_no_json_are_refused_only_where_they_are_used(tmp_path):
    days = [None, datetime.date(2024, 2, 29)]
    table = pyarrow.table({"question": ["p", "q"], "answer": ["1", "2"], "day": days})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert len(problems(task(tmp_path / "a.parquet", heldout_share=0.0))["train"]) == 2
    pyarrow.parquet.write_table(table.slice(1), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet, row 1: the field 'day' is not JSON"):
        task(tmp_path / "b.parquet", reference="day")


def test_a_folder_of_a_hub_data_set_has_its_own_splits(tmp_path):
    (tmp_path / "data").mkdir()
    for name, records in (("train-00000-of-00002", RECORDS[:9]), ("train-00001-of-00002", RECORDS[9:20]),
                          ("test-00000-of-00001", RECORDS[20:])):  # fmt: skip
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "data" / f"{name}.parquet")
    (tmp_path / "README.md").write_text("a card")
    found = problems(task(tmp_path))
    assert found["train"] == [(r["question"], r["answer"]) for r in RECORDS[:20]]
    assert found["heldout"] == [(r["question"], r["answer"]) for r in RECORDS[20:]]


def test_a_folder_that_was_saved_to_disk_is_read(tmp_path):
    for split, records in (("train", RECORDS[:30]), ("validation", RECORDS[30:])):
        (tmp_path / split).mkdir()
        table = pyarrow.Table.from_pylist(records)
        path = tmp_path / split / "data-00000-of-00001.arrow"
        with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        (tmp_path / split / "state.json").write_text("{}")
        (tmp_path / split / "dataset_info.json").write_text("{}")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    assert sorted(splits_of(tmp_path)) == ["train", "validation"]
    made = task(tmp_path)
    assert (made.num_examples("train"), made.num_examples("heldout")) == (30, 10)


def test_references_are_any_json_and_a_verifier_may_need_none(tmp_path):
    records = [{"question": f"q{i}", "answer": gold} for i, gold in enumerate([0, False, 1.5, {"a": [1]}, [[1]], "x"])]
    made = task(jsonl(tmp_path / "a.jsonl", records), heldout_share=0.0)
    assert [gold for _, gold in problems(made)["train"]] == [record["answer"] for record in records]
    made = task(jsonl(tmp_path / "b.jsonl", [{"question": "q"}]), reference="", heldout_share=0.0)
    assert made.example("train", 0).reference is None


def test_the_alphabet_is_that_of_prompts_and_references(tmp_path):
    made = task(jsonl(tmp_path / "a.jsonl", [{"question": "12=", "answer": "3"}, {"question": "b=", "answer": 4}]))
    assert made.alphabet == "1234=b"


MESSAGES = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "1 + 1 = ?"}]


def test_prompts_may_be_messages_and_are_rendered_as_such(tmp_path):
    made = task(jsonl(tmp_path / "a.jsonl", [{"question": MESSAGES, "answer": "2"}]), heldout_share=0.0)
    assert made.alphabet is None
    shown = rendered(made, "other", lambda x: "|".join(m["role"] + ":" + m["content"] for m in x.prompt))
    example = shown.example("train", 0)
    assert (example.prompt, example.id) == ("system:Be short.|user:1 + 1 = ?", "other/train/0")
    with pytest.raises(ValueError, match="these are chat messages"):
        worded(made, "So: {question}").example("train", 0)


def test_a_template_words_the_question(tmp_path):
    made = task(jsonl(tmp_path / "a.jsonl", [{"question": "1{2}?\n", "answer": "2"}]), heldout_share=0.0)
    assert worded(made, "Q: {question}\nA:").example("train", 0).prompt == "Q: 1{2}?\nA:"


def test_demonstrations_and_shots_of_a_worded_task_are_those_of_the_task():
    plain, other = modsum(digits=4, direct_share=0.0), worded(modsum(digits=4, direct_share=0.0), "Sum: {question}")
    for (question, answer), (wording, same) in zip(shots_of(plain, 3), shots_of(other, 3), strict=True):
        assert (wording, same) == (f"Sum: {question}", answer)


GOOD = {"question": "1 + 1?", "answer": "2"}


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("a.jsonl", [GOOD, {"q": "?", "answer": "2"}], "a.jsonl, line 2: no field 'question'; it has 'q', 'answer'"),
        ("a.jsonl", [GOOD, {"question": "?"}], "line 2: no field 'answer'"),
        ("a.jsonl", [GOOD, {"question": " ", "answer": "2"}], "line 2: .*'question' must hold text or messages"),
        ("a.jsonl", [{"question": 7, "answer": "2"}], "line 1: .* not 7"),
        ("a.jsonl", [GOOD, {"question": "?", "answer": " "}], "line 2: the reference, field 'answer', is empty"),
        ("a.jsonl", [{"question": "?", "answer": None}], "is empty: None"),
        ("a.jsonl", [{"question": "?", "answer": []}], r"is empty: \[\]"),
        ("a.jsonl", [GOOD, {"question": "a \udc80", "answer": "2"}], "line 2: the field 'question' is not JSON"),
        ("a.jsonl", [GOOD, {"question": "?", "answer": [float("nan")]}], "line 2: the field 'answer' is not JSON"),
        ("a.json", ["[" * 10**5], "a.json, not JSON"),
        ("a.jsonl", [GOOD, "text"], "line 2: not an object with fields, but str"),
        ("a.jsonl", [GOOD, "\x00{"], "line 2: not JSON"),
        ("a.json", ["[1, "], "a.json, not JSON"),
        ("a.jsonl", [], "a.jsonl holds no problem"),
        ("a.jsonl", [{"question": [], "answer": "2"}], "must end with what the policy is to answer"),
        ("a.jsonl", [{"question": [{"role": "bot", "content": ""}], "answer": "2"}], "line 1: message 1 of the field"),
        ("a.csv", ["question,answer", '"a, b",3', "c"], "a.csv, line 3: 1 fields, the header has 2"),
        ("a.csv", ["question,question"], "line 1: the names of the columns"),
        ("a.csv", ["question,answer", 'x,"y'], "a.csv, line 2: unexpected end of data"),
        ("a.parquet", ["no"], "a.parquet can't be read"),
        ("a.txt", ["no"], "end with .jsonl"),
    ],
)
def test_a_record_that_cannot_be_used_is_named_by_file_and_line(name, lines, message, tmp_path):
    path = tmp_path / name
    written = [line if isinstance(line, str) and name != "a.jsonl" else json.dumps(line) for line in lines]
    written = [line.replace('"\\u0000{"', "{") for line in written]
    path.write_text("".join(f"{line}\n" for line in written))
    with pytest.raises(ValueError, match=message):
        task(path)


def test_a_line_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + '\n{"question": "é", "answer": "2"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: not UTF-8"):
        task(path)


def test_a_reference_that_the_verifier_refuses_is_named_by_file_and_line(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [GOOD, {"question": "?", "answer": "many"}])
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: the reference 'many' can't be used: no digit"):
        task(path, check=lambda gold: None if gold.isdigit() else "no digit")


def test_folders_without_data_or_of_several_kinds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no file that ends with"):
        task(tmp_path)
    write_all(tmp_path)
    with pytest.raises(ValueError, match=re.escape("different kinds, .arrow, .csv, .json, .jsonl, .parquet")):
        task(tmp_path)
    with pytest.raises(OSError, match="absent"):
        read([tmp_path / "absent.jsonl"])
