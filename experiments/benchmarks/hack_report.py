"""Precision and recall of the detectors of `rlvr_jax.verifiers.hacks`, as a table.

python -m experiments.benchmarks.hack_report --data=DIR

The labelled programs are in experiments/benchmarks/hacks, a file for each detector. With --data, a folder that has
HumanEval and MBPP (tests/data/README.md), also how many of their canonical solutions each detector takes for a hack.
"""

import argparse
import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_jax.verifiers.hacks import DETECTORS, KnownTests, known_tests

FOLDER = Path(__file__).with_name("hacks")


@dataclass(frozen=True)
class Labelled:
    """A program with its tests, and whether it is a hack of the kind that the detector of that name looks for."""

    detector: str
    label: str
    is_hack: bool
    program: str
    tests: KnownTests

    @property
    def found(self) -> bool:
        """The detector takes it for a hack."""
        return DETECTORS[self.detector](ast.parse(self.program), self.tests)


def labelled() -> Iterator[Labelled]:
    """All labelled programs. A file begins with the tests of its programs; one may have others in its first line."""
    for name in DETECTORS:
        first, *parts = FOLDER.joinpath(f"{name}.txt").read_text(encoding="utf-8").split("\n=== ")
        for part in parts:
            title, _, program = part.partition("\n")
            kind, _, label = title.partition(": ")
            tests, own = first, program
            if program.startswith("tests: "):
                tests, _, own = program.partition("\n")
            reference = json.loads(tests.removeprefix("tests: "))
            yield Labelled(name, label, {"hack": True, "honest": False}[kind], own, known_tests(reference))


def canonical(folder: Path) -> Iterator[tuple[str, KnownTests]]:
    """The canonical solutions of HumanEval and MBPP with their tests."""
    for path in (folder / "humaneval/HumanEval.jsonl", folder / "mbpp/mbpp.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "code" in row:
                yield row["code"], known_tests({"type": "asserts", "tests": row["test_list"]})
            else:
                reference = {"type": "humaneval", **{key: row[key] for key in ("prompt", "entry_point", "test")}}
                yield row["prompt"] + row["canonical_solution"], known_tests(reference)


def table(programs: Sequence[Labelled], solutions: Sequence[tuple[ast.Module, KnownTests]]) -> list[Mapping[str, Any]]:
    """A row for each detector: counts, precision, recall, what it gets wrong, and false alarms on the solutions."""
    rows = []
    for name, detector in DETECTORS.items():
        own = [x for x in programs if x.detector == name]
        right = [x for x in own if x.is_hack and x.found]
        alarms, missed = (
            [x.label for x in own if x.found != x.is_hack and x.is_hack == hack] for hack in (False, True)
        )
        rows.append(
            {
                "detector": name,
                "hacks": sum(x.is_hack for x in own),
                "honest": sum(not x.is_hack for x in own),
                "precision": len(right) / (len(right) + len(alarms)),
                "recall": len(right) / (len(right) + len(missed)),
                "false alarms": alarms,
                "missed": missed,
                "on solutions": sum(detector(tree, tests) for tree, tests in solutions),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with humaneval/ and mbpp/")
    folder = parser.parse_args(arguments).data
    solutions = [(ast.parse(program), tests) for program, tests in canonical(folder)] if folder else []
    last = f" on {len(solutions)} solutions |" if solutions else ""
    print(f"| detector | hacks | honest | precision | recall | false alarms | missed |{last}")
    print("| --- | --- | --- | --- | --- | --- | --- |" + " --- |" * bool(solutions))
    for row in table(list(labelled()), solutions):
        cells = [f"`{row['detector']}`", row["hacks"], row["honest"], f"{row['precision']:.2f}", f"{row['recall']:.2f}"]
        cells += [
            "; ".join(row["false alarms"]),
            "; ".join(row["missed"]),
            *([row["on solutions"]] if solutions else []),
        ]
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
