"""The page about evaluation: its commands, its suite, and comparisons problem by problem."""

import json
import re
import shlex
import sys

import pytest

import rlvr_jax
from rlvr_jax.judges.rubrics import rubric_of
from tests.experiments.calls import call, complete
from tests.experiments.runs import ROOT, SMALL, error_of, overrides
from tests.judges.server import last_of, serving

PAGE = (ROOT / "docs" / "evaluation.md").read_text()
JUDGES = (ROOT / "docs" / "judges.md").read_text()
LONG = {"reward": "(('length',1.0),('score',1.0))"}  # which a random policy can change from the first step on


@pytest.fixture(scope="module")
def folder(tmp_path_factory, commands):
    """With the workdir of a run, which is that of the page."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "own.py").write_text("from rlvr_jax.verifiers import verifier_of\n\ncheck = verifier_of('modsum')\n")
    own = {"tasks.modsum.verifier": f"{folder}/own.py:check", "tasks.modsum.options.digits": 2}
    line = f"rlvr train --config=quickstart --workdir=runs/quickstart {overrides(SMALL | LONG | own)}"
    complete(module_of(line), folder, commands)
    return folder


def module_of(line):
    """The command of a page as that of a module."""
    program, name, *words = shlex.split(line)
    assert program == "rlvr"
    return [sys.executable, "-m", f"experiments.{name}", *words]


def evaluate(commands, folder, line):
    sizes = {r"--problems=.*": "--problems=8", r"--samples=[1-9].*": "--samples=4"}
    small = [next((y for x, y in sizes.items() if re.fullmatch(x, word)), word) for word in module_of(line)]
    return call(small, folder, commands)


@pytest.fixture(scope="module")
def outcomes(folder, commands):
    """Of the first commands of the page; before the last one the verifier is edited."""
    *lines, last = re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    first = [evaluate(commands, folder, line) for line in lines]
    with (folder / "own.py").open("a") as file:
        file.write("# edited")
    return [*first, evaluate(commands, folder, last)]


def test_the_commands_of_the_page_compare_two_policies_on_the_same_problems(folder, outcomes):
    assert [status for status, _, _ in outcomes] == [0, 0, 0], outcomes
    compared = outcomes[2][1].split("problem by problem\n")[1].splitlines()
    assert [line.split()[:2] for line in compared][:2] == [["modsum", "greedy_accuracy"], ["modsum", "pass@1"]]
    assert {re.search(r"(\d+) problems: ", line)[1] for line in compared} == {"7"}  # all that are held out
    start, end = (json.loads((folder / x).read_text()) for x in ("start.json", "runs/quickstart/evaluation.json"))
    difference = end["eval/pass@1"] - start["eval/pass@1"]
    assert float(compared[1].split()[2]) == pytest.approx(difference, abs=1e-4)
    assert start["values"]["pass@1"].keys() == end["values"]["pass@1"].keys()
    rows = [json.loads(line) for line in (folder / "start.jsonl").read_text().splitlines()]
    assert [row["task"] for row in rows] == ["modsum"] * 7
    assert all(len(row["samples"]) == 4 for row in rows)
    cut, limit = start["task/modsum/cut_off"], SMALL["rollout.max_response_length"]
    assert cut <= sum(row["length"] == limit for row in rows) / 7
    assert (cut > 0) == (f"cut off after {limit} tokens" in outcomes[1][1])
    page = (folder / "runs" / "quickstart" / "evaluation.html").read_text()
    assert page.count("<svg") >= 3
    assert "Compared with another evaluation" in page
    assert all(row["id"] in page for row in rows)


def test_an_edited_verifier_is_said_and_the_evaluation_has_its_checksum(folder, outcomes):
    edits = [re.findall(r"^note: (.*) was made with.* own\.py \(config\.(.*)\)$", x, re.M) for _, x, _ in outcomes]
    assert edits == [[], [], [(made, "tasks.modsum.verifier") for made in ("the run", "start.json")]]
    sums = [
        json.loads((folder / x).read_text())["code"]["tasks.modsum.verifier"]["own.py"]
        for x in ("start.json", "runs/quickstart/evaluation.json")
    ]
    assert sums[0] != sums[1]


def test_the_suite_of_the_page_is_evaluated_and_a_second_time_with_a_warning(folder, commands):
    suite = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
    suite["tasks"]["short"]["options"]["digits"], suite["tasks"]["long"]["options"]["digits"] = 1, 2
    suite["changes"]["rollout.max_response_length"] = 8
    (folder / "mine.json").write_text(json.dumps(suite))
    line = "rlvr evaluate --workdir=runs/quickstart --suite=./mine.json --problems=8 --samples=4"
    (first, stdout, stderr), (second, again, warning) = (evaluate(commands, folder, line) for _ in range(2))
    assert (first, second) == (0, 0), stderr
    assert {"short", "long"} <= {row.split()[0] for row in stdout.splitlines()}
    assert stdout.splitlines()[:-1] == again.splitlines()[:-1]
    assert ("unseen" in stderr, "./mine.json" in warning, "unseen" in warning) == (False, True, True)
    assert (folder / "runs" / "quickstart" / "evaluation_mine.json").exists()


def test_what_is_no_evaluation_is_named_before_anything_is_sampled(folder, commands):
    for line, message in (
        ("rlvr evaluate --workdir=runs/quickstart --against=runs/nothing", "--against"),
        ("rlvr evaluate --workdir=runs/quickstart --against=runs/quickstart/metrics.jsonl", "--against"),
        ("rlvr evaluate --workdir=runs/quickstart --suite=smal", "small"),
        ("rlvr evaluate --workdir=runs/quickstart --samples=0 --ks=1", "--ks"),
        ("rlvr evaluate --workdir=runs/quickstart --samples=0 --best_by=rm", "--best_by"),
        ("rlvr evaluate --workdir=runs/quickstart --config.seed=1", "--config.seed"),
        ("rlvr evaluate --workdir=runs/quickstart --output=runs/quickstart/metrics.json", "metrics.jsonl, of the run"),
        ("rlvr arena --policies=a=start.json,b=runs/quickstart --output=start.jsonl", "start.jsonl, which is read"),
        ("rlvr route --policies=a=start.json,b=runs/quickstart --prices=1,2 --output=start.json", "which is read"),
    ):
        assert message in error_of(evaluate(commands, folder, line), 2)


def of_page(commands, folder, line, url):
    """Runs a line of a page in the folder, with a judge at `url`, as small as it can be."""
    line = line.replace("http://localhost:8000/v1", url)
    small = overrides(SMALL) if line.startswith("rlvr train") else ""
    status, stdout, stderr = call(module_of(f"{line} {small}"), folder, commands)
    assert status == 0, stderr
    return stdout


def answer(body, _):
    """A judge that likes long responses."""
    text = last_of(body)
    if "Response B" in text:
        first, second = text.split("Response A:")[1].split("Response B:")
        more = first.count("\n| ") - second.count("\n| ")
        return f"Better: {'A' if more > 0 else 'B' if more < 0 else 'tie'}"
    if "rubric" in text:
        return "[1] It is right."
    if "Statement:" in text:
        return "Evidence: none\nMet: no"
    return f"Score: {1 + len(re.search(r'Response:(.*?)Grade', text, re.DOTALL)[1]) % 5}"


def test_arena_routing_and_judges_run_as_their_pages_say(folder, outcomes, commands):
    assert len(outcomes) == 3
    given = {"prompt": "1+1?", "completion": "2"}
    (folder / "completions.jsonl").write_text(
        json.dumps(given) + "\n" + json.dumps({**given, "completion": "two"}) + "\n"
    )
    judges, rubric = re.findall(r"```json\n(.*?)```", JUDGES, re.DOTALL)
    assert rubric_of(json.loads(rubric))
    arenas, route = (block.splitlines() for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)[1:])
    (judging,) = re.findall(r"```bash\n(.*?)```", JUDGES, re.DOTALL)
    with serving(answer) as server:
        (folder / "judges.json").write_text(judges.replace("http://localhost:8000/v1", server.url))
        said = [of_page(commands, folder, line, server.url) for line in (*judging.splitlines(), *arenas, *route)]
    bias, scores, evaluated, _, by_score, by_judge, routed = said
    assert re.search(r"padded +1\.000", bias)
    assert "2 completions: mean score" in scores
    assert {"score", "completion", "error"} <= json.loads((folder / "scores.jsonl").read_text().splitlines()[0]).keys()
    assert "judge/helpful" in evaluated
    assert re.search(r"best@2/helpful +\d", evaluated)
    trained = folder / "runs" / "judged"
    assert (trained / "judges" / "helpful.jsonl").read_text().count("\n") > 0
    assert '"judge/helpful/unjudged": 0' in (trained / "metrics.jsonl").read_text()
    told = json.loads((folder / "arena.json").read_text())
    assert {x["name"] for x in told["ratings"]["ratings"]} == {"start", "end"}
    assert all(
        word in text for text in (by_score, by_judge) for word in ("start", "end", "comparisons", "weight of length")
    )
    edited = "own.py (config.tasks.modsum.verifier): one version in start; another in end"
    assert [edited in text for text in (by_score, by_judge, routed)] == [True, False, True]
    assert re.search(r"(?m)^oracle ", routed)
    assert [x["name"] for x in json.loads((folder / "routing.json").read_text())["frontiers"]][-1] == "oracle"
    assert (folder / "routing.png").exists()


def test_the_command_of_lm_eval_asks_the_policy_of_a_run(folder, commands):
    (line,) = re.findall(r"(?m)^    (rlvr lm_eval .*)$", PAGE)
    line = line.replace("runs/gsm8k", "runs/quickstart")
    (folder / "lm_eval").symlink_to(ROOT / "tests" / "experiments" / "stand_in" / "lm_eval")
    status, stdout, stderr = call(module_of(line), folder, commands)
    assert status == 0, stderr
    told = json.loads((folder / "lm_eval.json").read_text())["results"]
    model = rlvr_jax.load(folder / "runs" / "quickstart")
    (logprobs,) = model.logprobs("11=", "2")
    for task in ("gsm8k", "arc_easy"):
        assert told[task]["logprob,none"] == pytest.approx(logprobs.sum(), rel=1e-4)
        assert told[task]["alias"] == model.generate("11=", max_tokens=4, temperature=0)[0].text.split("0")[0]
        assert re.search(rf"{task} +logprob \(none\) +{told[task]['logprob,none']:.4f} +0\.5000", stdout)
    unknown = line.replace("arc_easy", "arc_esy")
    assert "arc_esy" in error_of(call(module_of(unknown), folder, commands), 2)
