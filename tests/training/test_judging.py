"""Judges in a run: terms of the reward and verdicts, unjudged samples by name, and replays without the judge."""

import dataclasses
import json
import re

import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.judges import endpoint as endpoints
from rlvr_jax.rollout.episode import Group
from rlvr_jax.training.evaluating import evaluate_policy
from rlvr_jax.training.judging import make_ask, make_judging, read_judges
from rlvr_jax.training.loop import train
from rlvr_jax.training.setup import make_setup
from rlvr_jax.verifiers.judge import JudgeConfig
from rlvr_jax.verifiers.pool import Pool
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import episode
from tests.judges.server import last_of, serving
from tests.training.test_loop import QUIET, TINY, changed, rows_of

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(endpoints, "FIRST_DELAY", 0.001)


def response_of(body):
    return re.search(r"Response:\n\| ?(.*)\n", last_of(body))[1]


def by_length(body, _):
    """Longer is better; an empty response gets no score, and one of a single token breaks the endpoint."""
    said = response_of(body)
    return f"Well.\nScore: {min(10, 1 + len(said))}" if len(said) > 1 else 500 if said else "no idea"


def judged_by(server, **changes) -> JudgeConfig:
    return JudgeConfig(model="m", endpoint=server.url, retries=0, timeout=60.0, **changes)


def same_rows(a, b):
    keys = lambda row: {x: y for x, y in row.items() if not x.startswith("time/")}  # noqa: E731
    return [keys(row) for row in rows_of(a)] == [keys(row) for row in rows_of(b)]


def test_a_judge_is_a_term_of_the_reward_and_its_failures_are_counted_by_name(tmp_path):
    with serving(by_length) as server, Pool(0) as pool:
        once = changed(TINY, training={"num_steps": 1}, evaluation=QUIET)
        config = dataclasses.replace(once, judges={"helpful": judged_by(server)}, reward=(("helpful", 1.0),))
        train(config, tmp_path / "a", pool)
        asked = len(server.requests)
    rows = rows_of(tmp_path / "a")
    record = [json.loads(line) for line in (tmp_path / "a" / "judges" / "helpful.jsonl").read_text().splitlines()]
    assert len(record) == asked == len({row["key"] for row in record})
    failed = [row["judge/helpful/unjudged"] for row in rows[1:]]
    assert [row["verify/errors"] for row in rows[1:]] == failed
    assert sum(failed) > 0
    assert all(row["train/reward"] == pytest.approx(row["part/helpful"]) for row in rows[1:])
    samples = [json.loads(line) for line in (tmp_path / "a" / "samples.jsonl").read_text().splitlines()]
    trained = [row for row in samples if row["split"] == "train"]
    assert {row["error"][:15] for row in trained if row["error"]} <= {"judge helpful: "}
    for row in trained:
        if row["error"] is None:
            assert row["reward"] == pytest.approx(min(9, len(row["completion"])) / 9)
    # The server is gone: what was recorded replays to the bit.
    replay = dataclasses.replace(config.judges["helpful"], record=str(tmp_path / "a" / "judges"), replay=True)
    with Pool(0) as pool:
        train(dataclasses.replace(config, judges={"helpful": replay}), tmp_path / "b", pool)
    assert same_rows(tmp_path / "a", tmp_path / "b")


def test_a_task_may_leave_its_verdicts_to_a_judge_in_training_and_evaluation(tmp_path):
    full = lambda body, _: f"Score: {10 if len(response_of(body)) > 2 else 1}"  # noqa: E731
    with serving(full) as server, Pool(0) as pool:
        task = TaskConfig(options={"digits": 3}, verifier="judge", verifier_options={"judge": "j"})
        judges = {
            "j": judged_by(server),
            "other": judged_by(server, template="Another one. Response:\n{response}\n", highest=100),
        }
        config = dataclasses.replace(TINY, tasks={"modsum": task}, judges=judges, reward=(("score", 1.0),))
        train(changed(config, training={"num_steps": 1}), tmp_path, pool)
        rows = rows_of(tmp_path)
        assert 0 < rows[0]["eval/pass@4"] <= 1
        assert 0 < rows[1]["train/reward"] < 1
        assert rows[1]["judge/j/unjudged"] == rows[1]["judge/other/unjudged"] == 0
        assert "part/other" not in rows[1]
        found = evaluate_policy(config, tmp_path, pool, problems=4, samples=2, ks=(2,), judges={"j": judges["j"]})
        assert found.found.metrics["eval/errors"] == 0
        assert "eval/judge/other" not in found.found.metrics
        assert 0 < found.found.metrics["eval/judge/j"] <= 1
        long = [len(row["response"]) > 2 for row in found.rows()]
        assert [row["scores"]["j"] for row in found.rows()] == [float(x) for x in long]
        assert found.found.metrics["eval/greedy_accuracy"] == sum(long) / len(long)
        nobody = dataclasses.replace(task, verifier_options={"judge": "nobody"})
        with pytest.raises(ConfigError, match=r"config\.tasks\.modsum.*nobody.*j, other"):
            make_judging(make_setup(dataclasses.replace(config, tasks={"modsum": nobody})), tmp_path)


def test_only_samples_that_are_judged_otherwise_are_asked_about(tmp_path):
    with serving(by_length) as server:
        config = dataclasses.replace(TINY, judges={"helpful": judged_by(server)}, reward=(("helpful", 1.0),))
        judging = make_judging(make_setup(config), tmp_path)
        made = [episode(3, text, prompt=(1,)) for text in ("1234", "12345")]
        group = Group(made[0].example, tuple(made), (Verdict(0.0, error="it died"), Verdict(1.0, {"x": 2.0})))
        (found,) = judging.all([group])
        assert len(server.requests) == 1
    assert found.verdicts[0] == group.verdicts[0]
    assert found.verdicts[1].parts == {"x": 2.0, "helpful": pytest.approx(5 / 9)}
    assert judging.verdicts([group]) == [group]


def test_files_of_judges_and_models_that_cant_judge_are_named(tmp_path):
    file = tmp_path / "judges.json"
    for text, said in (
        ("{", "JSON|line 1"),
        ("[]", "object"),
        ('{"../j": {"model": "x"}}', "letters"),
        ('{"j": {"modle": "x"}}', "modle"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError, match=rf"--judges=.*judges\.json.*({said})"):
            read_judges(str(file))
    file.write_text('{"j": {"model": "x", "highest": 5}}')
    assert read_judges(str(file)) == {"j": JudgeConfig(model="x", highest=5)}
    with pytest.raises(ConfigError, match="'policy' has no tokens for a question"):  # it has those of sums alone
        make_ask("j", JudgeConfig(model="policy"), None, make_setup(TINY))
    for model in ("policy", str(tmp_path / "absent")):
        with pytest.raises(ConfigError, match="'j'"):
            make_ask("j", JudgeConfig(model=model), None)
