"""Runs in this process, for notebooks: `rlvr_jax.train`, `sft` and `prefer` make them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_jax.config import Config
from rlvr_jax.evaluation.suites import Suite, check_lengths, with_suite
from rlvr_jax.parallel.host import keep_freed_memory, same_kernels_each_time
from rlvr_jax.reporting import files, jsonl
from rlvr_jax.reporting.doctor import Finding, findings
from rlvr_jax.training.workdir import read_config
from rlvr_jax.verifiers.pool import make_pool


@dataclass(frozen=True)
class Run:
    """A run, finished or not, and what it has written so far.

    Attributes:
      workdir: its folder.
    """

    workdir: Path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one for each step; docs/metrics.md lists names and units."""
        return self._rows("metrics.jsonl")

    @property
    def samples(self) -> list[dict[str, Any]]:
        """The rows of samples.jsonl: prompts, responses, verdicts, rewards."""
        return self._rows("samples.jsonl")

    @property
    def report(self) -> Path:
        """The page with curves, and of reinforcement learning samples."""
        return self.workdir / "report.html"

    @property
    def findings(self) -> list[Finding]:
        """The report's findings on the curves, the most serious first."""
        return findings(self.metrics, json.loads((self.workdir / "config.json").read_text(encoding="utf-8")))

    def _rows(self, name: str) -> list[dict[str, Any]]:
        return jsonl.read(self.workdir / name) if (self.workdir / name).exists() else []

    def curve(self, metric: str) -> dict[int, float]:
        """A metric by step, where it was logged.

        Raises:
          KeyError: no step has it.
        """
        rows = self.metrics
        found = {row["step"]: row[metric] for row in rows if metric in row}
        if not found:
            known = ", ".join(sorted({name for row in rows for name in row} - {"step"}))
            raise KeyError(f"{self.workdir} has no metric {metric!r}; it has {known}")
        return found


def train(config: Config, workdir: Path) -> Run:
    """A run of reinforcement learning; see `rlvr_jax.train`."""
    from rlvr_jax.training.loop import train as loop

    _prepare()
    with make_pool(config.verifier) as pool:
        loop(config, workdir, pool)
    return Run(workdir)


def evaluate(workdir: Path, suite: Suite | None, judges: str | None = None, **options: Any) -> dict[str, Any]:
    """Of the policy of a run; see `rlvr_jax.evaluate`."""
    from rlvr_jax.training.evaluating import evaluate_policy
    from rlvr_jax.training.judging import read_judges

    options |= {"judges": read_judges(judges)} if judges else {}
    config = read_config(workdir)
    if suite:
        config = with_suite(config, suite)
        check_lengths(config)
    _prepare()
    with make_pool(config.verifier) as pool:
        found = evaluate_policy(config, workdir, pool, **options)
    return found.plain() | {"rows": found.rows()}


def sft(config: Config, workdir: Path) -> Run:
    """A supervised warm start; see `rlvr_jax.sft`."""
    from rlvr_jax.training.sft import sft as loop

    _prepare()
    loop(config, workdir)
    return Run(workdir)


def prefer(config: Config, workdir: Path) -> Run:
    """Learning from preferences; see `rlvr_jax.prefer`."""
    from rlvr_jax.training.preferences import prefer as loop

    _prepare()
    loop(config, workdir)
    return Run(workdir)


def sample(config: Config | None, workdir: Path, output: Path, **options: Any) -> dict[str, int]:
    """Samples of a policy to learn from; see `rlvr_jax.sample`."""
    from rlvr_jax.training.selection import part_of, select, written

    _prepare()
    config = read_config(workdir) if config is None else config
    with make_pool(config.verifier) as pool:
        found = select(config, workdir, pool, part=part_of(output), **options)
    files.replace(output, written(found, output))
    part_of(output).unlink(missing_ok=True)
    return found.counts


def _prepare() -> None:
    keep_freed_memory()
    same_kernels_each_time()
