"""Synthetic problems: written by a model from those of a task, and kept if their answers can be confirmed.

Sources: Wang et al. 2022 (Self-Instruct, arXiv:2212.10560) for problems from examples; Wang et al. 2022
(self-consistency, arXiv:2203.11171) for agreement of samples as evidence.
"""

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_jax import named
from rlvr_jax.config import Config, TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.judges.asking import Ask
from rlvr_jax.judges.prompts import text_of
from rlvr_jax.judges.writing import Written, writing, written_of
from rlvr_jax.reporting import files
from rlvr_jax.tasks import Task
from rlvr_jax.tasks.decontamination import find_matches
from rlvr_jax.tasks.task import draw
from rlvr_jax.training.drawing import sample
from rlvr_jax.training.problems import make_task, wrong_reference
from rlvr_jax.verifiers.pool import Pool, ToolCall, ToolError

_log = logging.getLogger(__name__)
_LABEL = "written"
Confirm = Callable[[Sequence[Written]], list[float]]


@dataclass(frozen=True)
class Synthesis:
    """Problems that were made.

    Attributes:
      records: of a file for `config.tasks.<task>.file`: prompt, reference, and the agreement on it.
      counts: of what was written, by what became of it.
    """

    records: list[dict[str, Any]]
    counts: dict[str, int]


def synthesise(
    task: Task,
    ask: Ask,
    confirm: Confirm,
    heldout: Sequence[tuple[str, str]] = (),
    *,
    problems: int,
    shown: int = 4,
    each: int = 4,
    agree: float = 0.5,
    seed: int = 0,
) -> Synthesis:
    """Problems like those of a task, each written once, none of them leaking a held-out one, with a confirmed answer.

    Args:
      task: whose training problems are the examples.
      ask: the model that writes.
      confirm: problems -> for each the share of tries, from 0 to 1, that confirm its answer.
      heldout: (id, prompt) of the problems that none may leak, see `tasks.decontamination`.
      problems: to ask for.
      shown: examples in a question.
      each: problems to ask for at a time.
      agree: the least share that counts as confirmed.
      seed: of the examples.
    """
    count, counts = task.num_examples("train"), Counter()
    seen, fresh = set(), []
    asked = range(-(-problems // each))
    examples = [
        [task.example("train", draw("synthesis", seed, i, j) % (count or 2**31)) for j in range(shown)] for i in asked
    ]
    chats = [writing([Written(text_of(x.prompt), x.reference) for x in some], each) for some in examples]
    for some, answer in zip(examples, ask(chats), strict=True):
        seen |= {_words(text_of(x.prompt)) for x in some}
        counts["questions without an answer"] += answer.error is not None
        found, wrong = written_of(answer.text)
        counts["lines that are no problem"] += wrong
        for new in found:
            counts["problems"] += 1
            reason = _refused(task, new) or "repeated" * (_words(new.problem) in seen)
            counts[reason] += bool(reason)
            fresh += [] if reason else [new]
            seen.add(_words(new.problem))
    own = [(str(i), new.problem) for i, new in enumerate(fresh)]
    leaks = {match.train_id for match in find_matches(own, list(dict(heldout).items()))}
    counts["leaks of held-out problems"] += len(leaks)
    fresh = [new for i, new in enumerate(fresh) if str(i) not in leaks]
    shares = confirm(fresh) if fresh else []
    kept = [(new, share) for new, share in zip(fresh, shares, strict=True) if share >= agree]
    counts |= {"not confirmed": len(fresh) - len(kept), "kept": len(kept)}
    records = [{"prompt": new.problem, "reference": new.answer, "agreement": share} for new, share in kept]
    return Synthesis(records, {name: number for name, number in counts.items() if name})


def by_code(function: str, pool: Pool) -> Confirm:
    """Confirmation by `module:function`, (problem, answer) -> whether the answer is right, in processes of the pool.

    An answer whose check raises, hangs or dies is not confirmed, and a warning counts them.

    Raises:
      ConfigError: there is no such function.
    """
    try:
        named.check_arguments(function, "problem", "answer")
    except ValueError as error:
        raise ConfigError(f"--check: {error}") from error

    def confirm(problems: Sequence[Written]) -> list[float]:
        futures = pool.submit([ToolCall(function, args=(new.problem, new.answer)) for new in problems])
        shares, errors = [], []
        for future in futures:
            try:
                shares.append(float(bool(future.result())))
            except ToolError as error:
                shares.append(0.0)
                errors.append(error)
        if errors:
            told = len(errors), len(problems), errors[0]
            _log.warning("%d of %d answers could not be checked and are not confirmed; the first: %s", *told)
        return shares

    return confirm


def by_samples(
    config: Config, label: str, workdir: Path | None, pool: Pool, file: Path, *, samples: int, seed: int = 0
) -> Confirm:
    """Confirmation by a policy: the share of its samples that the verifier of the task holds right.

    Args:
      config: of the task and the limits.
      label: of the task.
      workdir: of the run whose policy it is; None for the one that the config starts from.
      pool: for verifiers.
      file: that the problems are written to.
      samples: of each problem.
      seed: of the samples.
    """
    plain, old = make_task(config, label), config.tasks[label]
    new = dataclasses.replace(
        old, name="", options={}, file=str(file), prompt="prompt", reference="reference", heldout_file="",
        heldout_share=0.0, shots=0, verifier=plain.verifier, verifier_options=plain.verifier_options,
        weight=1.0,
    )  # fmt: skip
    # The others stay for the alphabet of a character tokenizer.
    others: dict[str, TaskConfig] = {x: dataclasses.replace(y, weight=0.0) for x, y in config.tasks.items()}
    rollout = dataclasses.replace(config.rollout, overlong_prompts="drop")
    config = dataclasses.replace(config, tasks=others | {_LABEL: new}, rollout=rollout)

    def confirm(problems: Sequence[Written]) -> list[float]:
        rows = [{"prompt": x.problem, "reference": x.answer} for x in problems]
        files.replace(file, "".join(json.dumps(row) + "\n" for row in rows).encode())
        _, groups, _ = sample(config, workdir, pool, problems=len(problems), samples=samples, seed=seed)
        shares = {}
        for group in groups:
            judged = [x.score == 1 for x in group.verdicts if x.error is None]
            key = text_of(group.example.problem), json.dumps(group.example.reference)
            shares[key] = sum(judged) / len(judged) if judged else 0.0
        return [shares.get((x.problem, json.dumps(x.answer)), 0.0) for x in problems]

    return confirm


def _refused(task: Task, new: Written) -> str:
    """Why a problem can't be one of the task; empty if it can."""
    text = new.problem + text_of(new.answer)
    if task.alphabet is not None and not set(text) <= set(task.alphabet):
        return "with other characters than the task's"
    wrong = wrong_reference(task.verifier, task.verifier_options, new.answer)
    return "with an answer that the verifier refuses" if wrong else ""


def _words(text: str) -> str:
    return " ".join(text.casefold().split())
