"""The verifier of mathematics on the field's own data: counts that must not fall."""

import resource

import pytest

from experiments.benchmarks.verifier_report import (
    agreement,
    case_score,
    gsm8k_completion,
    math_attack,
    math_cases,
    ours,
    ours_with_last_number,
)
from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.pool import Job, Pool
from tests.data.read import rows

MATH_VERIFY = {"main": 204, "convention": 13, "format": 2, "f1": 0}  # math-verify 0.9.0 on the same cases
SEVERAL_BOXES = 15  # solutions of MATH with several boxes side by side, of which the gold answer is the last only


@pytest.mark.parametrize(("judge", "main"), [(ours, 246), (ours_with_last_number, 247)])
def test_agreement_with_the_test_cases_of_other_graders_does_not_fall(data_sets, judge, main):
    cases = math_cases(data_sets)
    groups = agreement(judge, cases)
    assert {group: total for group, (_, total) in groups.items()} == {
        "main": 252,
        "convention": 18,
        "format": 5,
        "f1": 9,
    }
    assert groups["main"][0] >= main > MATH_VERIFY["main"]
    assert groups["convention"][0] >= 10
    assert groups["format"][0] >= 3


def test_cases_that_upstream_asserts_both_ways_are_judged_both_ways(data_sets):
    cases = [case for case in math_cases(data_sets) if case.get("symmetric") and case["group"] == "main"]
    assert len(cases) == 13
    for case in cases:
        turned = {**case, "gold": str(case["prediction"]), "prediction": str(case["gold"])}
        assert case_score(ours, turned) == case["expected"], case


def test_published_model_solutions_are_judged_as_their_labels_say(data_sets):
    for solution in rows(data_sets / "verifier_outputs" / "gsm8k_openai_solutions.jsonl"):
        assert ours(gsm8k_completion(solution), solution["gold"]) == solution["expected"], solution
        assert ours_with_last_number(solution["response"], solution["gold"]) == solution["expected"], solution


def test_gold_solutions_of_math_verify_against_their_own_answers(data_sets):
    problems = [problem for problem in rows(data_sets / "math" / "train_12k.jsonl") if problem["answer"]]
    wrong = [problem for problem in problems if ours(problem["solution"], problem["answer"]) != 1.0]
    assert len(wrong) <= SEVERAL_BOXES
    for problem in wrong:
        assert problem["solution"].count(r"\boxed") > 1, problem


def test_the_answer_of_another_problem_does_not_verify(data_sets):
    problems = [problem for problem in rows(data_sets / "math" / "train_12k.jsonl") if problem["answer"]]
    golds = [problem["answer"].strip() for problem in problems]
    step = 5003  # coprime to the number of problems
    for index in range(0, len(golds), 3):
        answer, gold = golds[(index * step + 1) % len(golds)], golds[index]
        if answer != gold and ours(rf"\boxed{{{answer}}}", gold) == 1.0:
            raise AssertionError(f"{answer} verifies against {gold}; is it equal?")


def test_hostile_answers_score_zero_and_the_pool_keeps_its_workers(data_sets):
    hostile = rows(data_sets / "hostile" / "hostile_math.jsonl")
    assert len(hostile) == 40
    with Pool(workers=1, timeout=60.0, memory_bytes=1 << 30) as pool:
        pool.judge([Job("math", "1", "1")])
        before = pool.process_ids
        verdicts = pool.judge([Job("math", math_attack(row), row["gold"]) for row in hostile])
        assert pool.process_ids == before
    for row, verdict in zip(hostile, verdicts, strict=True):
        assert (verdict.score, verdict.error) == (0.0, None), row["name"]
        again = verify("math", math_attack(row), row["gold"], last_number=True)
        assert (again.score, again.error) == (0.0, None), row["name"]


def test_hostile_answers_need_little_processor_time_and_memory(data_sets):
    def used() -> tuple[float, int]:
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(u.ru_utime + u.ru_stime for u in usage), usage[0].ru_maxrss

    for row in rows(data_sets / "hostile" / "hostile_math.jsonl"):
        (before, memory), attack = used(), math_attack(row)
        assert ours(attack, row["gold"]) == 0.0
        after, grown = used()
        assert after - before < 5.0, row["name"]  # measured: at most 0.12; processor time is not wall time
        assert grown - memory < 200 << 10, row["name"]
