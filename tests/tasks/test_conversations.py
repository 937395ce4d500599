"""Chats and preferences of files, and the records that are left out."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from rlvr_jax.tasks.conversations import read_chats, read_preferences

USER, ANSWER = {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}
CALL = {"role": "assistant", "tool_calls": [{"name": "add"}]}


def written(folder, records) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_chats_are_messages_or_prompt_and_completion(tmp_path):
    records = [
        {"messages": [USER, ANSWER]},
        {"prompt": "1+1?", "completion": "2"},
        {"prompt": [USER], "completion": [ANSWER]},
        {"messages": [USER, CALL, {"role": "tool", "content": "2"}, ANSWER], "tools": [{"name": "add"}]},
    ]
    chats, left = read_chats(written(tmp_path, records))
    assert [chat.messages for chat in chats[:3]] == [(USER, ANSWER)] * 3
    assert chats[3].messages[1] == CALL | {"content": ""}
    assert (chats[3].tools, left.count) == (({"name": "add"},), 0)


def test_bad_chats_are_counted_by_reason_with_file_and_line(tmp_path):
    records = [
        {"messages": [USER, ANSWER]},
        {"messages": [USER]},
        {"messages": [USER, ANSWER, USER]},
        {"messages": [USER, {"role": "robot", "content": "2"}]},
        {"messages": [USER, {"role": "assistant", "content": " "}]},
        {"messages": [USER, {"role": "assistant"}]},
        {"messages": []},
        {"messages": [ANSWER]},
        {"text": "2"},
        {"prompt": "1+1?", "chosen": "2", "rejected": "3"},
    ]
    chats, left = read_chats(written(tmp_path, records))
    assert (len(chats), left.count) == (1, 9)
    found = {reason: (count, place.partition(", ")[2]) for reason, (count, place) in left.reasons.items()}
    assert {*found.values()} == {(2, "line 2"), *((1, f"line {i}") for i in (4, 5, 6, 7, 10)), (2, "line 8")}
    assert any("'robot'" in reason for reason in found)
    assert any("rlvr prefer" in reason for reason in found)
    assert "rows.jsonl, line 2" in str(left)


def test_a_key_that_occurs_twice_is_named_by_file_and_line(tmp_path):
    file = tmp_path / "rows.jsonl"
    row = '{"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1, "margin": 2}'
    file.write_text(row.replace(', "margin": 2', "") + "\n" + row)
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2: .*'margin'"):
        read_preferences(str(file))
    (tmp_path / "rows.json").write_text(f"[{row}]")
    with pytest.raises(ValueError, match=r"rows\.json.*'margin'"):
        read_preferences(str(tmp_path / "rows.json"))


def test_parquet_has_fields_without_values(tmp_path):
    record = {"messages": [USER | {"name": None}, ANSWER | {"name": "x"}]}
    pyarrow.parquet.write_table(pa.Table.from_pylist([record]), tmp_path / "train.parquet")
    (chat,), _ = read_chats(str(tmp_path))
    assert chat.messages == (USER, ANSWER | {"name": "x"})


def test_pairs_are_texts_or_chats_that_differ_in_their_last_message(tmp_path):
    other = {"role": "assistant", "content": "3"}
    records = [
        {"prompt": "1+1?", "chosen": "2", "rejected": "3", "margin": 2},
        {"chosen": [USER, ANSWER], "rejected": [USER, other]},
        {"messages": [USER], "chosen": "2", "rejected": "3"},
    ]
    pairs, left = read_preferences(written(tmp_path, records))
    assert [pair.completions for pair in pairs] == [("2", "3")] * 3
    assert [pair.margin for pair in pairs] == [2.0, 1.0, 1.0]
    assert [pair.prompt for pair in pairs] == ["1+1?", (USER,), (USER,)]
    assert left.count == 0
    single, _ = read_preferences(
        written(tmp_path, [*records, {"prompt": "a", "completion": "b", "label": False}]), False
    )
    assert [(x.completions, x.good) for x in single[-3:]] == [(("2",), True), (("3",), False), (("b",), False)]


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "equal"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": 0}, "ties"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": -1}, "negative"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "much"}, "number"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": 10**400}, "number"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": -(10**400)}, "number"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": float("nan")}, "number"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1e39}, "number"),
        ({"chosen": [USER, CALL], "rejected": [USER, ANSWER]}, "tools"),
        ({"prompt": "a", "chosen": [CALL | {"content": "so"}], "rejected": "c"}, "tools"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": True}, "number"),
        ({"prompt": "a", "chosen": "", "rejected": "c"}, "'chosen'"),
        ({"prompt": "a", "chosen": "b"}, "'rejected'"),
        ({"chosen": "b", "rejected": "c"}, "no prompt"),
        ({"messages": [USER, ANSWER]}, "no 'chosen' and 'rejected'; chats are for rlvr sft"),
        ({"prompt": [USER, ANSWER], "chosen": "b", "rejected": "c"}, "ends with the assistant"),
        ({"chosen": [USER, ANSWER], "rejected": [USER | {"content": "other"}, ANSWER]}, "differ before"),
    ],
)
def test_bad_pairs_are_named(record, named, tmp_path):
    pairs, left = read_preferences(written(tmp_path, [record]))
    ((reason, (count, place)),) = left.reasons.items()
    assert (pairs, count, place.endswith("line 1")) == ([], 1, True)
    assert named in reason
