"""Self-training: samples of a policy, judged, of which the good ones become data to learn from.

The sets are those of rejection sampling, expert iteration and STaR (the policy's own right samples), of best-of-n
distillation, of sequence distillation (a larger policy's samples), and pairs for preference tuning.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from rlvr_jax import tasks
from rlvr_jax.config import Config
from rlvr_jax.errors import RunError
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.critic import CriticConfig
from rlvr_jax.learner.rewards import Rewards, joined, reward
from rlvr_jax.parallel import Processes
from rlvr_jax.rollout.episode import Episode, Group, flattened
from rlvr_jax.tasks.curriculum import CurriculumConfig
from rlvr_jax.training.evaluating import opened_policy
from rlvr_jax.training.judging import FOLDER, make_judging
from rlvr_jax.training.reward_models import make_model_scores
from rlvr_jax.training.setup import Setup, training_mixture
from rlvr_jax.training.sft import in_chat_format
from rlvr_jax.verifiers.pool import Pool

Keep = Literal["right", "best", "pairs"]
_AT_ONCE = 4096  # episodes in flight


@dataclass(frozen=True)
class Selection:
    """Samples to learn from.

    Attributes:
      records: of a file for `config.sft.sources`, or with "pairs" for `config.preferences.sources`.
      counts: of problems and samples, by what became of them.
      notes: on what the prompts had that those of a run which learns from the set will not have.
    """

    records: list[dict[str, Any]]
    counts: dict[str, int]
    notes: tuple[str, ...] = ()


def sample(
    config: Config,
    workdir: Path | None,
    pool: Pool,
    processes: Processes | None = None,
    *,
    problems: int = 512,
    samples: int = 8,
    temperature: float | None = None,
    step: int | None = None,
    seed: int = 0,
    number: int = 0,
) -> tuple[Setup, list[Group], Rewards]:
    """Judged samples of a policy on training problems, with the scores of reward models and judges.

    Args:
      config: whose tasks, limits, reward and reward models hold.
      workdir: of the run whose policy it is; None for the one that the config starts from.
      pool: for verifiers.
      processes: of this program.
      problems: to draw from the training tasks; equal ones count once.
      samples: of each.
      temperature: of the samples; None for that of the config.
      step: of the checkpoint; the newest by default.
      seed: of problems and samples.
      number: of the set among those of the same policy or loop: each has the next problems.

    Raises:
      ConfigError, CheckpointError: the config can't run, a task has several turns, or the policy can't be read.
    """
    rollout = dataclasses.replace(config.rollout, group_size=samples)
    if temperature is not None:
        rollout = dataclasses.replace(rollout, temperature=temperature)
    # Nothing is trained, so any sizes and filters of samples are allowed.
    method = AlgorithmConfig(baseline="none", scale="none", proximal="recompute", correction="token_tis")
    others = {"algorithm": method, "critic": CriticConfig(), "curriculum": CurriculumConfig(), "teacher": ""}
    config = dataclasses.replace(config, rollout=rollout, **others)
    why = "a set of samples has one answer to each problem"
    with opened_policy(config, workdir, pool, processes, step, one_turn=why) as (setup, collector, _):
        examples = tasks.batch(training_mixture(setup), "train", seed, number, problems)
        distinct = list({(x.task, x.prompt, repr(x.reference)): x for x in examples}.values())
        judging, of_models = make_judging(setup, workdir and workdir / FOLDER), make_model_scores(setup)
        key, size = jax.random.fold_in(jax.random.key(seed), number), max(1, _AT_ONCE // samples)
        groups, found = [], []
        for first in range(0, len(distinct), size):
            part, of_part = distinct[first : first + size], jax.random.fold_in(key, first)
            collector.start("samples", part, samples, of_part, rollout.temperature)
            judged = judging.all(of_models(judging.verdicts(collector.take("samples"))))
            found.append(reward(config.reward, judged, setup.parts, config.verifier.timeout, setup.processes))
            groups += judged
    return setup, groups, joined(found)


def select(
    config: Config,
    workdir: Path | None,
    pool: Pool,
    processes: Processes | None = None,
    *,
    problems: int = 512,
    keep: Keep = "right",
    most: int = 0,
    least: float | None = None,
    **options: Any,
) -> Selection:
    """The samples to learn from, see `selected`, of those of `sample`, which has the other arguments."""
    setup, groups, rewards = sample(config, workdir, pool, processes, problems=problems, **options)
    chosen = selected(setup, groups, rewards, keep, most, least)
    counts = {"repeated problems": problems - len(groups)} | chosen.counts
    return dataclasses.replace(chosen, counts=counts, notes=tuple(_lost_of_prompts(setup)))


def selected(
    setup: Setup, groups: Sequence[Group], rewards: Rewards, keep: Keep, most: int = 0, least: float | None = None
) -> Selection:
    """The samples to learn from. Unjudged ones, those that a limit cut off, empty ones and, of equal ones to the same
    problem, all but the first are left out, and counted.

    A sample is right if the verifier scores it 1, or, with `least`, if its reward is at least that. A pair needs
    different rewards; its margin is their difference.

    Source: of "right" with `most` Singh et al. 2023 (ReST-EM, arXiv:2312.06585), section 3; Zelikman et al. 2022
    (STaR, arXiv:2203.14465), without hints; of "best" Dong et al. 2023 (RAFT, arXiv:2304.06767).

    Args:
      setup: of the policy, for the form of the records.
      groups: the episodes.
      rewards: theirs.
      keep: "right": chats, all right samples; "best": chats, the sample of the highest reward of each problem; "pairs":
        the samples of the highest and the lowest reward of each problem, for preference tuning.
      most: right samples of a problem at most, the first ones; 0 for all.
      least: reward of a right sample.
    """
    episodes, _, _ = flattened(groups)
    counts: Counter[str] = Counter(problems=len(groups), samples=len(episodes))
    records: list[dict[str, Any]] = []
    ends = np.searchsorted(rewards.group, np.arange(len(groups) + 1))
    for group, start, end in zip(groups, ends[:-1], ends[1:], strict=True):
        usable: dict[str, int] = {}  # text -> index of its first sample
        for i in range(start, end):
            text, episode = episodes[i].response, episodes[i]
            reason = (
                "unjudged" * (not rewards.judged[i])
                or "cut off" * episode.cut_off
                or "empty" * (not text.strip())
                or "duplicates" * (text in usable)
            )
            if reason:
                counts[reason] += 1
            else:
                usable[text] = i
        right = [i for i in usable.values() if _is_right(rewards, i, least)]
        counts["right"] += len(right)
        counts["problems without a right sample"] += not right
        order = sorted(usable.values(), key=lambda i: -float(rewards.values[i]))  # stable: the first of equal ones
        if keep == "pairs":
            if len(order) < 2 or rewards.values[order[0]] == rewards.values[order[-1]]:
                counts["problems without a pair"] += 1
                continue
            best, worst = order[0], order[-1]
            margin = float(rewards.values[best] - rewards.values[worst])
            pair = {"chosen": episodes[best].response, "rejected": episodes[worst].response, "margin": margin}
            records.append(_asked(setup, group) | pair | {"example": group.example.id})
            continue
        chosen = order[:1] if keep == "best" else right[: most or None]
        counts["more than the most of a problem"] += len(right) - len(chosen) if keep == "right" else 0
        records += [_record(setup, group, episodes[i], float(rewards.values[i])) for i in chosen]
    counts["written"] = len(records)
    return Selection(records, dict(counts))


def written(found: Selection, path: Path) -> bytes:
    """The samples as a JSON Lines file. Raises RunError if there are none, with their counts and the path."""
    if not found.records:
        counts = ", ".join(f"{count} {name}" for name, count in found.counts.items() if count)
        raise RunError(f"no sample could be used; {path} is not written ({counts})")
    return "".join(json.dumps(record) + "\n" for record in found.records).encode()


def _is_right(rewards: Rewards, i: int, least: float | None) -> bool:
    return bool(rewards.values[i] >= least) if least is not None else rewards.verdicts[i].score == 1


def _record(setup: Setup, group: Group, episode: Episode, value: float) -> dict[str, Any]:
    """A chat: the problem as the task has it, so that the run which learns from it renders it anew."""
    asked, text = _asked(setup, group), episode.response
    if "messages" in asked:
        asked["messages"].append({"role": "assistant", "content": text})
    else:
        asked["completion"] = text
    return asked | {"example": group.example.id, "reward": value}


def _asked(setup: Setup, group: Group) -> dict[str, Any]:
    """The problem: messages for a chat template, with the system prompt of its task, else text."""
    problem = group.example.problem or group.example.prompt
    if not in_chat_format(setup):
        return {"prompt": problem if isinstance(problem, str) else problem[0]["content"]}
    system = setup.config.tasks[group.example.task].system
    messages = [{"role": "system", "content": system}] * bool(system)
    asked = [{"role": "user", "content": problem.rstrip("\n")}] if isinstance(problem, str) else map(dict, problem)
    return {"messages": [*messages, *asked]}


def _lost_of_prompts(setup: Setup) -> Iterator[str]:
    for label, task in setup.config.tasks.items():
        lost = [f"{task.shots} shots"] * bool(task.shots)
        lost += [f"thinking = {task.thinking!r}"] * (task.thinking != "default")
        lost += ["a system prompt"] * (bool(task.system) and not in_chat_format(setup))
        if lost:
            yield f"the prompts of config.tasks.{label} have {', '.join(lost)}; those of the written set do not"
