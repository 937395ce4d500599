"""Self-training: samples of a policy, judged, of which the good ones become data to learn from.

The sets are those of rejection sampling, expert iteration and STaR (the policy's own right samples), of best-of-n
distillation, of sequence distillation (a larger policy's samples), and pairs for preference tuning.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rlvr_jax.config import Config, to_dict
from rlvr_jax.errors import ConfigError, RunError
from rlvr_jax.learner.rewards import Rewards, of_groups
from rlvr_jax.parallel import Processes
from rlvr_jax.reporting import jsonl
from rlvr_jax.rollout.episode import Episode, Group, flattened
from rlvr_jax.tasks import Example
from rlvr_jax.text.tokenizers import encode_batch
from rlvr_jax.training.drawing import Draws, opened_draws
from rlvr_jax.training.problems import hinting
from rlvr_jax.training.setup import Setup
from rlvr_jax.training.sft import in_chat_format
from rlvr_jax.training.versions import version_of
from rlvr_jax.verifiers.pool import Pool

Keep = Literal["right", "best", "pairs"]
# In the order of the choice: those unjudged to `wrong` taken from `samples` leave the right ones, and duplicates and
# those above the most taken from these the written ones.
_COUNTS = (
    *("problems", "problems without a right sample", "samples", "unjudged", "cut off", "empty", "wrong", "right"),
    *("duplicates of right samples", "more than the most of a problem"),
)


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


def select(
    config: Config,
    workdir: Path | None,
    pool: Pool,
    processes: Processes | None = None,
    *,
    keep: Keep = "right",
    most: int = 0,
    least: float | None = None,
    hint: str = "",
    part: Path | None = None,
    problems: int = 512,
    **options: Any,
) -> Selection:
    """The samples to learn from, see `selected`, of those of `drawing.opened_draws`, which has the other arguments.

    With a hint the problems without a right sample are sampled again with the hint in their prompts, and right samples
    are kept with the problem as it is: the rationalisation of STaR (Zelikman et al. 2022, arXiv:2203.14465, section
    3.2).

    Args:
      keep, most, least: of the choice.
      hint: the wording of a hinted problem, with the places {question} and {answer}; empty for none.
      part: file that finished problems are written to as they come. The same call after a kill goes on behind them, to
        the same set; delete the file once that is stored. None for no such file.

    Raises:
      ConfigError, CheckpointError: as `opened_draws`; or a hint can't be given.
    """
    if hint and keep != "right":
        raise ConfigError(f"a hint is for keep = 'right', not {keep!r}")
    if hint and "{question}" not in hint:
        raise ConfigError(f"the hint {hint!r} has no place {{question}}")
    with opened_draws(config, workdir, pool, processes, problems=problems, **options) as draws:
        setup, choice = draws.setup, {"keep": keep, "most": most, "least": least}
        change = _hinted_problems(draws, hint) if hint else None
        source = str(workdir or config.init_from or config.pretrained)
        name = _name_of([to_dict(config), source, version_of(source), draws.step, options, choice, problems, hint])
        first = setup.processes.index == 0
        done = _read_part(part, name) if part and first else {}
        finished = set(setup.processes.exchange(sorted(done))[0])
        for indices in draws.parts:
            if finished.issuperset(indices):
                continue
            found = dict(zip(indices, _each(setup, *draws.draw(indices, None), choice), strict=True))
            failed = [i for i in indices if change and not found[i].counts["right"]]
            if failed:
                again = _each(setup, *draws.draw(failed, change), choice)
                found |= {i: _with_hint(found[i], x) for i, x in zip(failed, again, strict=True)}
            done |= found
            if part and first:
                told = [{"set": name, "problem": i} | dataclasses.asdict(x) for i, x in found.items()]
                jsonl.append(part, told)
    chosen = [done[i] for i in sorted(done)]
    counts = Counter({"repeated problems": problems - len(draws.problems)})
    for x in chosen:
        counts.update(x.counts)
    return Selection([record for x in chosen for record in x.records], dict(counts), tuple(_lost_of_prompts(setup)))


def _each(setup: Setup, groups: Sequence[Group], rewards: Rewards, choice: dict[str, Any]) -> list[Selection]:
    """The samples to learn from, of each group by itself."""
    return [selected(setup, [x], of_groups(rewards, np.array([i])), **choice) for i, x in enumerate(groups)]


def _with_hint(plain: Selection, hinted: Selection) -> Selection:
    """Of a problem without a right sample what it gives with a hint."""
    right = hinted.counts["right"] - hinted.counts["duplicates of right samples"]
    counts = {"problems with a hint": 1, "right with a hint": right}
    records = [record | {"hint": True} for record in hinted.records]
    return Selection(records, plain.counts | counts | {"written": len(records)})


def _hinted_problems(draws: Draws, hint: str) -> Callable[[Example], Example]:
    """The function from a problem to the one with a hint, tried on all. Raises ConfigError for one that can't be."""
    setup = draws.setup
    labels = {example.task for example in draws.problems}
    of_task = {label: hinting(setup.config, label, setup.tokenizer, hint) for label in labels}
    change = lambda example: of_task[example.task](example)  # noqa: E731
    most = setup.config.rollout.max_prompt_length
    try:
        prompts = [change(example).prompt for example in draws.problems]
        lengths = [len(ids) for ids in encode_batch(setup.tokenizer, prompts)]
    except ValueError as error:
        raise ConfigError(f"the hint {hint!r} can't be given: {error}") from error
    if max(lengths) > most:
        id = draws.problems[int(np.argmax(lengths))].id
        raise ConfigError(
            f"the prompt of {id} has {max(lengths)} tokens with its hint, more than config.rollout.max_prompt_length = "
            f"{most}"
        )
    return change


def _name_of(data: Any) -> str:
    """A hash of what decides a set."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def _read_part(part: Path, name: str) -> dict[int, Selection]:
    """The problems of this set that an earlier process has finished. Raises ConfigError if the file holds none."""
    try:
        rows = jsonl.read(part) if part.exists() else []
        return {x["problem"]: Selection(x["records"], x["counts"]) for x in rows if x["set"] == name}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{part} holds no part of a set of samples ({error!r}); remove it") from error


def selected(
    setup: Setup, groups: Sequence[Group], rewards: Rewards, keep: Keep, most: int = 0, least: float | None = None
) -> Selection:
    """The samples to learn from. Unjudged ones, those that a limit cut off, empty ones and, of equal ones to the same
    problem, all but the first are left out, and counted.

    A sample is right if the verifier scores it 1, or, with `least`, if its reward is at least that. A pair needs
    different rewards; its margin is their difference.

    Source: of "right" with `most` Singh et al. 2023 (ReST-EM, arXiv:2312.06585), section 3; Zelikman et al. 2022
    (STaR, arXiv:2203.14465); of "best" Dong et al. 2023 (RAFT, arXiv:2304.06767).

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
    counts: Counter[str] = Counter(dict.fromkeys(_COUNTS, 0))
    counts.update(problems=len(groups), samples=len(episodes))
    records: list[dict[str, Any]] = []
    ends = np.searchsorted(rewards.group, np.arange(len(groups) + 1))
    for group, start, end in zip(groups, ends[:-1], ends[1:], strict=True):
        usable: dict[str, int] = {}  # text -> index of its first sample
        for i in range(start, end):
            text, episode = episodes[i].response, episodes[i]
            reason = "unjudged" * (not rewards.judged[i]) or "cut off" * episode.cut_off or "empty" * (not text.strip())
            counts[reason or ("right" if _is_right(rewards, i, least) else "wrong")] += 1
            if not reason:
                usable.setdefault(text, i)
                counts["duplicates of right samples"] += usable[text] != i and _is_right(rewards, i, least)
        right = [i for i in usable.values() if _is_right(rewards, i, least)]
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


def part_of(output: Path) -> Path:
    """The file in which a set is gathered that will be stored in `output`."""
    return output.with_name(f"{output.name}.part")


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
