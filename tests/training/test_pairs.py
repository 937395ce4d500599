"""Pairs of several policies: whose tasks and scores they have, and what leaks a held-out problem."""

import dataclasses

import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation.pairs import binarised
from rlvr_jax.evaluation.suites import Suite
from rlvr_jax.rollout.episode import Group
from rlvr_jax.tasks import Example, make_task
from rlvr_jax.training import pairs
from rlvr_jax.training.pairs import asked_of, config_of
from rlvr_jax.verifiers.judge import JudgeConfig
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import episode
from tests.training.test_loop import TINY

JUDGED = dataclasses.replace(
    TINY,
    judges={"j": JudgeConfig(model="m", endpoint="http://x"), "other": JudgeConfig(model="m", endpoint="http://x")},
    reward_models={"rm": "somewhere"},
)


def group(id, *scores, prompt="1+1=", parts=()):
    example = Example(id, f"<s>{prompt}", "2", "sums", problem=prompt)
    made = tuple(episode(3, f"{id} {x}", example=example) for x in scores)
    verdicts = tuple(Verdict(0.0, error="no") if x is None else Verdict(x, dict.fromkeys(parts, 1 - x)) for x in scores)
    return Group(example, made, verdicts)


def test_the_score_is_the_verifiers_or_of_the_name_that_is_asked_for():
    groups = {"a": [group("1", 1.0, None, parts=["j"])], "b": [group("1", 0.25, parts=["j"]), group("2", 0.5)]}
    both = {"a": groups["a"], "b": groups["b"][:1]}
    by_score, by_judge = binarised(asked_of(groups, "")), binarised(asked_of(both, "j"))
    (first,), (second,) = by_score.rows, by_judge.rows
    assert (first["chosen"], first["rejected"], first["margin"], first["prompt"]) == ("1 1.0", "1 0.25", 0.75, "1+1=")
    assert (second["chosen"], second["rejected"]) == ("1 0.25", "1 1.0")
    assert by_score.left_out["unjudged"] == 1
    assert by_score.left_out["too few responses"] == 1


def test_a_policy_answers_the_tasks_of_the_base_and_only_what_scores_is_loaded():
    config = config_of("some/model", JUDGED, "j")
    assert (config.pretrained, config.reward, set(config.judges), config.reward_models) == (
        "some/model", (("j", 1.0),), {"j"}, {},
    )  # fmt: skip
    assert config.rollout == TINY.rollout
    assert set(config_of("some/model", JUDGED, "rm").reward_models) == {"rm"}
    assert config_of("some/model", JUDGED, "").reward == (("score", 1.0),)
    owned = TaskConfig(verifier="judge", verifier_options={"judge": "other"})
    assert set(config_of("x", dataclasses.replace(JUDGED, tasks={"modsum": owned}), "").judges) == {"other"}
    with pytest.raises(ConfigError, match=r"--by=helpful.*j, other, rm"):
        config_of("some/model", JUDGED, "helpful")


def test_problems_that_leak_a_held_out_one_are_found_and_left_out(monkeypatch):
    monkeypatch.setattr(pairs, "_MOST_HELDOUT", 20)
    suite = Suite({"modsum": TaskConfig(options={"digits": 4})})
    heldout = make_task("modsum", {"digits": 4}).example("heldout", 0)
    groups = [group("leaks", 1.0, 0.0, prompt=heldout.prompt), group("fine", 1.0, 0.0, prompt="a poem about rain")]
    found = pairs.leaked(groups, TINY, suite)
    assert list(found) == ["leaks"]
    assert found["leaks"].startswith("modsum: modsum/heldout/")
    made = binarised(asked_of({"a": groups}, "", found))
    assert [row["id"] for row in made.rows] == ["fine"]
    assert made.left_out["leaked"] == 1
