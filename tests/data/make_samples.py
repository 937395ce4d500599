"""Takes the samples in this folder out of the whole files: `python -m tests.data.make_samples DIR`.

Each file here holds some lines of the file of the same name in DIR, in their order and to the letter: those that a test
names, those of every kind that the code treats in a way of its own, and others at equal distances. `checksums.json` is
for the samples what `rlvr_jax/tasks/checksums.json` is for the whole files.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rlvr_jax.tasks import bfcl, published, split_of
from rlvr_jax.tasks.math import boxed
from tests.data.read import lines_of
from tests.tasks.test_published import FILES

HERE = Path(__file__).parent
BFCL = "bfcl/bfcl_v4_shared.jsonl"  # several published files in one
Rows = list[dict[str, Any]]

# Pairs of problems that tests/tasks/test_decontamination.py names.
DECONTAMINATION = """
    train/algebra/777 test/algebra/1674 train/algebra/517 test/algebra/636 train/algebra/2197
    test/intermediate_algebra/965 train/geometry/6032 test/precalculus/24307 train/algebra/2034 test/algebra/1169
    train/algebra/488 test/algebra/1095 train/counting_and_probability/1049 test/counting_and_probability/587
    train/algebra/2171 test/algebra/1023 train/prealgebra/236 test/prealgebra/885
"""


def every(rows: Rows, number: int) -> Iterator[int]:
    """So many indices at equal distances."""
    yield from range(0, len(rows), max(1, len(rows) // number))


def first(rows: Rows, number: int, is_one: Callable[[dict[str, Any]], Any]) -> Iterator[int]:
    """Indices of the first rows of a kind."""
    yield from [index for index, row in enumerate(rows) if is_one(row)][:number]


def of_each(rows: Rows, kinds: Callable[[dict[str, Any]], Iterable[Any]]) -> Iterator[int]:
    """Indices of rows among which every kind is."""
    seen: set[Any] = set()
    for index, row in enumerate(rows):
        if not seen.issuperset(kinds(row)):
            seen.update(kinds(row))
            yield index


def gsm8k(rows: Rows) -> Iterator[int]:
    yield from range(40)
    yield from first(rows, 4, lambda row: "," in row["answer"].rpartition("####")[2])
    yield from first(rows, 1, lambda row: "-" in row["answer"].rpartition("####")[2])


def math_problems(rows: Rows) -> Iterator[int]:
    named = {f"{name}.json" for name in DECONTAMINATION.split()} | {"test/counting_and_probability/1087.json"}
    yield from first(rows, len(named), lambda row: row["unique_id"] in named)
    yield min(range(len(rows)), key=lambda index: rows[index]["unique_id"])
    yield from first(rows, 2, lambda row: not row["answer"])
    yield from first(rows, 2, lambda row: row["level"] is None)
    yield from first(rows, 2, lambda row: row["answer"] and f"\\boxed {row['answer']}" in row["solution"])
    yield from first(rows, 3, lambda row: row["solution"].count("\\boxed") > 1)
    yield from first(rows, 2, lambda row: not (row["problem"] + row["solution"]).isascii())
    heldout = lambda row: split_of(f"math/{row['problem']}", 1 / 24) == "heldout"  # noqa: E731
    yield from first(rows, 8, lambda row: boxed(row["solution"]) and heldout(row))
    yield from of_each(rows, lambda row: [(row["subject"], row["level"])])
    yield from every(rows, 90)


def mbpp(rows: Rows) -> Iterator[int]:
    yield from first(rows, 99, lambda row: row["task_id"] in (1, 2, 3, 4, 10, 11, 510, 511, 600, 601, 974, 367, 927))
    yield from first(rows, 4, lambda row: row.get("test_imports"))
    yield from first(rows, 15, lambda row: 511 <= row["task_id"] <= 600)
    yield from every(rows, 45)


def ifeval(rows: Rows) -> Iterator[int]:
    yield from first(rows, 2, lambda row: row["key"] in (1122, 1129))
    yield from of_each(rows, lambda row: row["instruction_id_list"])
    yield from every(rows, 30)


def arc(rows: Rows) -> Iterator[int]:
    small = lambda row: len(json.dumps(row)) < 1500  # noqa: E731
    for split in ("training", "evaluation"):
        yield from first(rows, 14, lambda row: row["split"] == split and small(row))  # noqa: B023 - used at once
        yield from first(
            rows,
            3,
            lambda row: row["split"] == split and len(row["test"]) > 1 and len(json.dumps(row)) < 4000,  # noqa: B023
        )
    yield from first(rows, 2, lambda row: row["task_id"] in ("40853293", "070dd51e"))


def countdown(rows: Rows) -> Iterator[int]:
    yield from range(140)
    # Problems that differ in the order of the numbers only, and would straddle the split if that mattered.
    found: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        found.setdefault((*sorted(row["nums"]), row["target"]), []).append(index)
    splits = lambda indices: {split_of(f"countdown/{rows[i]['nums']}/{rows[i]['target']}") for i in indices}  # noqa: E731
    yield from [index for same in found.values() if len(splits(same)) > 1 for index in same][:10]


def cryptarithm(rows: Rows) -> Iterator[int]:
    yield from first(rows, 8, lambda row: len(set("".join(row["words"]))) == 3)
    yield from first(rows, 5, lambda row: not row["example_solution"])
    yield from every(rows, 40)


# Papers that cite others by authors and year, the cited ones, and others by the same first authors.
PAPERS = """
    C18-1030 C16-1130 D18-1080 D17-1064 P18-2114 D19-1002 N19-1357 2020.acl-main.455 P19-1330 2020.emnlp-main.602
    D17-1247 C16-2007 D18-2023 C16-2035 P19-3034 P17-2052 P17-1105 P17-2007 2020.acl-main.325 N19-1223 E17-2029
    2020.findings-emnlp.1 P19-1153 2020.acl-main.134 P17-2106 2020.acl-main.500 Q16-1009
"""


def papers(rows: Rows) -> Iterator[int]:
    named = PAPERS.split()
    yield from first(rows, len(named), lambda row: row["id"] in named)
    short = lambda row: len(row["abstract"]) < 700 and row["abstract"].count(". ") > 2  # noqa: E731
    brief = list(first(rows, len(rows), short))
    yield from (brief[index] for index in every(brief, 60))


def calls(rows: Rows) -> Iterator[int]:
    small = lambda row: len(json.dumps(row)) < (900 if row["category"] != "multiple" else 1800)  # noqa: E731
    for category in ("simple_python", "multiple", "irrelevance"):
        yield from first(rows, 12, lambda row: row["category"] == category and small(row))  # noqa: B023 - used at once


CHOSEN: dict[str, Callable[[Rows], Iterable[int]]] = {
    "arc_agi1/tasks.jsonl": arc,
    BFCL: calls,
    "corpus/acl_anthology_2016_2020.jsonl": papers,
    "countdown/train.jsonl": countdown,
    "cryptarithm/train.jsonl": cryptarithm,
    "gsm8k/test.jsonl": gsm8k,
    "gsm8k/train.jsonl": gsm8k,
    "hostile/attacks.jsonl": lambda rows: range(len(rows)),
    "hostile/controls.jsonl": lambda rows: range(len(rows)),
    "hostile/hostile_math.jsonl": lambda rows: range(len(rows)),
    "humaneval/HumanEval.jsonl": lambda rows: every(rows, 40),
    "ifeval/prompts.jsonl": ifeval,
    "ifeval/unit_cases.jsonl": lambda rows: range(len(rows)),
    "math/train_12k.jsonl": math_problems,
    "math_equiv/cases.jsonl": lambda rows: range(len(rows)),
    "mbpp/mbpp.jsonl": mbpp,
    "mbpp/sanitized-mbpp.jsonl": mbpp,
    "verifier_outputs/gsm8k_openai_solutions.jsonl": lambda rows: every(rows, 60),
}


def checksums(file: published.PublishedFile, lines: list[bytes]) -> dict[str, str]:
    """The entry of a sample of that published file."""
    expected, _ = published.checksums(file.name)
    found = {}
    for _, value in file.read(b"\n".join(lines)):
        index, digest = published._find(file, {field: value[field] for field in file.fields}, expected)
        assert index is not None, value
        found[index] = digest
    digests = [found[index] for index in sorted(found)]
    records = "".join(digest.hex()[: published._DIGITS] for digest in digests)
    return {"sha256": hashlib.sha256(b"".join(digests)).hexdigest(), "records": records}


def main(folder: Path) -> None:
    for path, chosen in CHOSEN.items():
        lines = lines_of(folder / path)
        sample = [lines[index] for index in sorted(set(chosen([json.loads(line) for line in lines])))]
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_bytes(b"\n".join(sample) + b"\n")
    files = [*FILES.values(), *((file, BFCL) for files in (bfcl.QUESTIONS, bfcl.ANSWERS) for file in files.values())]
    entries = {file.name: checksums(file, lines_of(HERE / path)) for file, path in files}
    # The text of the 500 is not among the data sets, and a test makes problems in their place.
    entries["math_test"] = json.loads(published.CHECKSUMS.read_text())["math_test"]
    (HERE / "checksums.json").write_text(json.dumps(entries, indent=0) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
