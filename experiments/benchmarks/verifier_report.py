"""The tables of docs/verifier_measurements.md: agreement with test cases and on synthetic completions, speed, attacks.

    python -m experiments.benchmarks.verifier_report --data=DIR

Each section is a function from the folder of the data sets to Markdown. Compared speeds are measured in the same run,
on the same items, in alternation, so their ratio is more reliable than either.
"""

import argparse
import contextlib
import gzip
import json
import logging
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.verifiers import mathematics, verify

from .code_report import code_lines
from .verifier_corpus import Item, corpus

Row = Mapping[str, Any]
Judge = Callable[[str, str], float]  # (completion, reference) -> score

SPEED_ITEMS = 100  # of MATH in a round, half of them with the answer of another problem
SPEED_ROUNDS = 3
IN_TIME = 1.0  # seconds of CPU time within which an attack must be judged
GIVE_UP = 20  # seconds of CPU time


def rows(path: Path) -> list[Row]:
    """The records of a JSON Lines file, gzipped or not."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def table(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in [header, ["---"] * len(header), *lines])


# --- mathematics


def math_cases(data: Path) -> list[Row]:
    """The cases with an undisputed verdict, each with its `group`: main, convention, format or f1."""
    found = []
    for row in rows(data / "math_equiv" / "cases.jsonl"):
        if row["expected"] is not None and not row.get("label_suspect"):
            group = "convention" if row.get("convention") else row["kind"]
            found.append({**row, "group": group if group in ("convention", "format", "f1") else "main"})
    return found


def math_completion(case: Row) -> str:
    """The completion of a case; a bare answer without delimiters is boxed."""
    return case["prediction"] if case["form"] == "response" else rf"\boxed{{{case['prediction']}}}"


def math_attack(row: Row) -> str:
    """The answer of a record of hostile_math.jsonl; long ones are stored in parts."""
    if "answer_parts" in row:
        return "".join(text * count for text, count in row["answer_parts"])
    if "answer_range" in row:
        template, count, separator, before, after = row["answer_range"]
        return before + separator.join(template % number for number in range(count)) + after
    return row["answer"]


def gsm8k_completion(row: Row) -> str:
    """A model solution of GSM8K with its last line, `A: 18`, as `#### 18`."""
    return row["response"].replace("\nA: ", "\n#### ")


def case_score(judge: Judge, case: Row) -> float:
    """The best score against any of the gold answers."""
    golds = case["gold"] if isinstance(case["gold"], list) else [case["gold"]]
    return max(judge(math_completion(case), gold) for gold in golds)


def agreement(judge: Judge, cases: Sequence[Row]) -> Mapping[str, tuple[int, int]]:
    """For each group, the number of cases judged as expected, and of all."""
    right = Counter(case["group"] for case in cases if case_score(judge, case) == case["expected"])
    return {group: (right[group], total) for group, total in Counter(case["group"] for case in cases).items()}


def ours(completion: str, reference: str) -> float:
    return verify("math", completion, reference).score


def ours_with_last_number(completion: str, reference: str) -> float:
    return verify("math", completion, reference, last_number=True).score


def math_verify_directly(completion: str, reference: str) -> float:
    """`math-verify` as its documentation calls it."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig
    from math_verify import parse as parse_answer
    from math_verify import verify as verify_answers

    with contextlib.suppress(Exception):
        gold = parse_answer(reference, [LatexExtractionConfig(), ExprExtractionConfig()])
        if not gold:  # a gold answer without delimiters
            gold = parse_answer(f"${reference}$", [LatexExtractionConfig(), ExprExtractionConfig()])
        return float(verify_answers(gold, parse_answer(completion)))
    return 0.0


def speed_items(data: Path) -> list[list[tuple[str, str]]]:
    """For each round, solutions of MATH, alternately with their own gold answer and with that of another problem."""
    problems = [row for row in rows(data / "math" / "train_12k.jsonl.gz") if row["answer"]]
    pairs = [
        (problem["solution"], problems[index + index % 2]["answer"])
        for index, problem in enumerate(problems[: SPEED_ROUNDS * SPEED_ITEMS])
    ]
    return [pairs[start : start + SPEED_ITEMS] for start in range(0, len(pairs), SPEED_ITEMS)]


def speeds(judges: Sequence[Judge], rounds: Sequence[Sequence[tuple[str, str]]]) -> list[float]:
    """Items per second of CPU time in this process for each judge: the best round.

    Rounds share no item, since a verifier may cache its parses.
    """
    best = [0.0] * len(judges)
    for items in rounds:
        for index, judge in enumerate(judges):
            start = time.process_time()
            for completion, reference in items:
                judge(completion, reference)
            best[index] = max(best[index], len(items) / (time.process_time() - start))
    return best


def attacks(judge: Judge, hostile: Sequence[Row]) -> tuple[int, int, float]:
    """The number of attacks rejected (score 0), of those within `IN_TIME`, and the longest CPU time in seconds.

    Each is judged in a child process that the kernel kills after `GIVE_UP` seconds of CPU time: not rejected, then.
    """
    held, in_time, longest = 0, 0, 0.0
    for row in hostile:
        completion, before = math_attack(row), os.times()
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_CPU, (GIVE_UP, GIVE_UP))
            os._exit(0 if judge(completion, row["gold"]) == 0.0 else 1)
        zero, after = os.waitpid(child, 0)[1] == 0, os.times()
        seconds = after.children_user + after.children_system - before.children_user - before.children_system
        held += zero
        in_time += zero and seconds <= IN_TIME
        longest = max(longest, seconds)
    return held, in_time, longest


def math_section(data: Path) -> str:
    """Agreement, speed and rejected attacks of the `math` verifier, compared with math-verify called directly."""
    logging.disable(logging.CRITICAL)  # math-verify reports every answer that it fails to parse
    cases, hostile = math_cases(data), rows(data / "hostile" / "hostile_math.jsonl")
    solutions = rows(data / "verifier_outputs" / "gsm8k_openai_solutions.jsonl.gz")
    judges = {"`math`": ours, "`math`, last_number": ours_with_last_number, "math-verify": math_verify_directly}
    rate = dict(zip(judges, speeds(list(judges.values()), speed_items(data)), strict=True))
    lines = []
    for name, judge in judges.items():
        print(f"{name} …", file=sys.stderr)  # math-verify needs minutes for the attacks
        groups = agreement(judge, cases)
        right = sum(judge(gsm8k_completion(row), row["gold"]) == row["expected"] for row in solutions)
        print("attacks …", file=sys.stderr)
        held, in_time, longest = attacks(judge, hostile)
        lines.append(
            [
                name,
                *(f"{a} of {b}" for a, b in (groups[group] for group in ("main", "convention", "format", "f1"))),
                f"{right} of {len(solutions)}",
                f"{rate[name]:.0f} ({rate[name] / rate['math-verify']:.0f}x)",
                f"{held} of {len(hostile)}",
                f"{in_time}",
                f"{longest:.2f}",
            ]
        )
    header = ["verifier", "cases", "convention", "format", "f1", "model solutions", "answers/s (CPU)"]
    return table([*header, "attacks rejected", f"in {IN_TIME:g} s", "slowest, s CPU"], lines) + "\n\n" + math_gold(data)


def corpus_section(_data: Path) -> str:
    """Agreement and speed on the completions of `verifier_corpus`, short and long, compared with math-verify."""
    logging.disable(logging.CRITICAL)
    judges = {"`math`": ours, "`math`, last_number": ours_with_last_number, "math-verify": math_verify_directly}
    lines: list[list[object]] = []
    for length, long in (("short", False), ("long", True)):
        items = corpus(long=long)
        characters = sum(len(item.completion) for item in items) // len(items)
        rounds = [[(item.completion, item.gold) for item in corpus(seed, long)] for seed in range(1, 1 + SPEED_ROUNDS)]
        rates = dict(zip(judges, speeds(list(judges.values()), rounds), strict=True))
        for name, judge in judges.items():
            accepted, rejected = corpus_errors(judge, items)
            lines.append(
                [
                    f"{length}, {characters} characters",
                    name,
                    f"{len(items) - accepted - rejected} of {len(items)}",
                    f"{accepted} of {sum(not item.right for item in items)}",
                    f"{rejected} of {sum(item.right for item in items)}",
                    f"{rates[name]:.0f} ({rates[name] / rates['math-verify']:.1f}x)",
                ]
            )
    return table(["completions", "verifier", "agreed", "false accepts", "false rejects", "answers/s (CPU)"], lines)


def corpus_errors(judge: Judge, items: Sequence[Item]) -> tuple[int, int]:
    """The number of false accepts and of false rejects."""
    scores = [judge(item.completion, item.gold) for item in items]
    accepted = sum(score == 1.0 and not item.right for score, item in zip(scores, items, strict=True))
    return accepted, sum(score != 1.0 and item.right for score, item in zip(scores, items, strict=True))


def math_gold(data: Path) -> str:
    """The number of gold solutions of MATH that verify against their own answers, and of problems used."""
    problems = [row for row in rows(data / "math" / "train_12k.jsonl.gz") if row["answer"]]
    right = sum(mathematics.verify(row["solution"], row["answer"]).score == 1.0 for row in problems)
    return f"Gold solutions of MATH that verify against their own answer: {right} of {len(problems)}."


# --- constraints


def constraints_section(data: Path) -> str:
    """Agreement with the unit cases of the published checker, and responses per second."""
    cases = rows(data / "ifeval" / "unit_cases.jsonl")
    agreed = 0
    for case in cases:
        reference = {"prompt": "", "instruction_id_list": [case["instruction_id"]], "kwargs": [case["kwargs"]]}
        agreed += verify("constraints", case["response"], reference).parts["strict/0"] == float(case["expected"])
    prompts = rows(data / "ifeval" / "prompts.jsonl")
    texts = [row["solution"] for row in rows(data / "math" / "train_12k.jsonl.gz")[: len(prompts)]]
    judge = lambda: [verify("constraints", text, prompt) for text, prompt in zip(texts, prompts, strict=True)]  # noqa: E731
    accepted = sum(verdict.error is None for verdict in judge())
    start = time.process_time()
    judge()
    rate = len(prompts) / (time.process_time() - start)
    header = ["unit cases agreed", "prompts accepted", "responses/s (CPU)"]
    return table(header, [[f"{agreed} of {len(cases)}", f"{accepted} of {len(prompts)}", f"{rate:.0f}"]])


# --- code


def code_section(data: Path) -> str:
    """Canonical solutions, attacks and speed for each sandbox engine available on this machine."""
    return table(*code_lines(data))


SECTIONS: Mapping[str, Callable[[Path], str]] = {
    "Mathematics": math_section,
    "Synthetic completions": corpus_section,
    "Constraints": constraints_section,
    "Code": code_section,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets, see tests/data/README.md")
    parser.add_argument("--section", choices=SECTIONS, help="only this section")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.error(f"--data: there is no folder {arguments.data}")
    for name in [arguments.section] if arguments.section else SECTIONS:
        print(f"## {name}\n\n{SECTIONS[name](arguments.data)}\n")


if __name__ == "__main__":
    main()
