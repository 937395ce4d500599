"""RLVR in JAX: reinforcement learning with verifiable rewards. docs/architecture.md describes the packages."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def load(path: str | Path, dtype: str | None = None) -> Any:
    """A policy for notebooks: a `rlvr_jax.rollout.model.Model` with `generate` and `logprobs`.

        model = rlvr_jax.load("HuggingFaceTB/SmolLM2-135M-Instruct")
        model.generate([{"role": "user", "content": "What is 3 + 4?"}], temperature=0)[0].text

    Args:
      path: the folder or hub id of a Hugging Face checkpoint, a GGUF file, or the workdir of a run, whose newest policy
        is taken.
      dtype: of parameters and computation, "float32" or "bfloat16"; None keeps the checkpoint's.

    Raises:
      CheckpointError, ConfigError: it was not found, or is of an unsupported kind.
    """
    from rlvr_jax.training import models  # here: `import rlvr_jax` takes no time

    return models.load(path, dtype)


def train(config: Any, workdir: str | Path, changes: Mapping[str, Any] | None = None) -> Any:
    """Reinforcement learning in this process: the command `rlvr train` as a function.

        run = rlvr_jax.train("quickstart", "runs/quickstart", {"init_from": "runs/quickstart/sft", "seed": 1})
        run.curve("eval/greedy_accuracy")

    The same call continues a run that was interrupted; of a finished one it only reads the results.

    Args:
      config: a `rlvr_jax.config.Config`, a dictionary or `ConfigDict` of one, the name of a built-in config, or a file.
      workdir: folder of the run.
      changes: other values of some keys, by full name, such as "optimizer.learning_rate".

    Returns:
      `rlvr_jax.runs.Run`.

    Raises:
      ConfigError: a key or value is wrong, or the folder belongs to another run; by name.
      PreemptedError: interrupted; the state is saved.
    """
    from rlvr_jax import runs

    return runs.train(_config(config, changes), Path(workdir).expanduser())


def sft(config: Any, workdir: str | Path, changes: Mapping[str, Any] | None = None) -> Any:
    """A supervised warm start on the demonstrations of the config's tasks: the command `rlvr sft`. See `train`."""
    from rlvr_jax import runs

    return runs.sft(_config(config, changes), Path(workdir).expanduser())


def prefer(config: Any, workdir: str | Path, changes: Mapping[str, Any] | None = None) -> Any:
    """Learning from pairs, of a policy or of a reward model: the command `rlvr prefer` as a function. See `train`."""
    from rlvr_jax import runs

    return runs.prefer(_config(config, changes), Path(workdir).expanduser())


def sample(run: Any, output: str | Path, *, keep: str = "right", config: Any = None, **options: Any) -> dict[str, int]:
    """Draws samples of a run's policy and writes the good ones as a set: the command `rlvr sample` as a function.

        rlvr_jax.sample(start, "pairs.jsonl", keep="pairs", problems=2000, samples=8)

    Args:
      run: a `rlvr_jax.runs.Run`, or the workdir of one, also of a warm start.
      output: JSON Lines file of the set.
      keep: "right", "best" (of each problem) or "pairs" (the best and the worst of each).
      config: whose tasks, verifiers and rewards hold; that of the run by default.
      **options: `problems`, `samples`, `most`, `least`, `hint`, `temperature`, `step`, `seed` and `number`,
        see docs/self_training.md.

    Returns:
      Numbers of problems and samples by what became of them.

    Raises:
      ConfigError, CheckpointError: the folder holds no policy, or something is wrong with the arguments.
      RunError: no sample could be used.
    """
    from rlvr_jax import runs

    workdir, output = Path(getattr(run, "workdir", run)).expanduser(), Path(output).expanduser()
    return runs.sample(None if config is None else _config(config, None), workdir, output, keep=keep, **options)


def evaluate(
    run: Any,
    *,
    problems: int = 256,
    samples: int = 16,
    ks: Sequence[int] = (),
    step: int | None = None,
    seed: int = 0,
    suite: str | Mapping[str, Any] | None = None,
    judges: str | None = None,
    best_by: Sequence[str] = (),
) -> dict[str, Any]:
    """Greedy accuracy, pass@k and maj@k of a run's policy: the command `rlvr evaluate` as a function.

        rlvr_jax.evaluate(run, samples=64)["eval/maj@16"]

    Args:
      run: a `rlvr_jax.runs.Run`, or the workdir of one, also of a warm start.
      problems: held-out problems of each task at most.
      samples: of each problem, at temperature 1; 0 for greedy accuracy alone.
      ks: of pass@k and maj@k; by default the powers of two up to `samples`.
      step: of the checkpoint; the newest by default.
      seed: of the samples.
      suite: name or file of a suite of tasks, or what is in such a file; by default the tasks of the run.
      judges: file of judges, whose mean scores of the greedy responses are metrics.
      best_by: judges, and reward models of the run, by which the best of k samples is chosen: best@k/NAME.

    Returns:
      Means with their 95 % intervals (`_low`, `_high`), under "values" the result of each problem, under "rows" the
      responses (`rlvr_jax.evaluation.results`), and the cost.

    Raises:
      ConfigError, CheckpointError: the folder holds no policy, or something is wrong with the arguments.
    """
    from rlvr_jax import runs
    from rlvr_jax.experiments import builtin

    workdir = Path(getattr(run, "workdir", run)).expanduser()
    chosen = builtin.suite(suite) if suite else None
    sizes = {"problems": problems, "samples": samples, "ks": ks, "step": step, "seed": seed, "best_by": best_by}
    return runs.evaluate(workdir, chosen, judges, **sizes)


def _config(config: Any, changes: Mapping[str, Any] | None) -> Any:
    from rlvr_jax.errors import ConfigError
    from rlvr_jax.experiments import builtin
    from rlvr_jax.sweeps import grid

    if not (isinstance(config, str | Path | Mapping) or hasattr(config, "to_dict") or hasattr(config, "rollout")):
        raise ConfigError(f"a config is a name of a built-in one, a file, a dictionary or a Config, not {config!r:.50}")
    try:
        config = builtin.load(config)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return grid.changed(config, changes or {})


def sweep(
    config: Any,
    grid: str | Mapping[str, Sequence[Any]],
    folder: str | Path,
    *,
    changes: Mapping[str, Any] | None = None,
    one_at_a_time: bool = False,
    at_once: int = 1,
    retry: bool = False,
    warm_start: bool = True,
    metric: str = "eval/greedy_accuracy",
    threshold: float | None = None,
) -> Any:
    """Runs a config with other values of some keys for several seeds, and compares them; see docs/sweeps.md.

        rlvr_jax.sweep("countdown", {"algorithm.scale": ["group_std", "none"], "seed": range(5)}, "runs/scales")

    The runs are made in processes of their own, and by the same call after an interrupt only those that are left.

    Args:
      config: a `rlvr_jax.config.Config`, a dictionary or `ConfigDict` of one, the name of a built-in config, or a file.
      grid: keys and their values; or a text, as on the command line.
      folder: of the runs and the report.
      changes: other values of some keys, for all runs.
      one_at_a_time: compare the config with each single change, not the first combination of values with all others.
      at_once: runs at a time, among which GPUs or CPU cores are divided.
      retry: make runs again that have failed.
      warm_start: begin with a supervised run for each seed, where the config has no other beginning.
      metric: that is compared, of docs/metrics.md; more is better.
      threshold: of the metric, for the time until it is reached.

    Returns:
      `rlvr_jax.sweeps.results.Results`.

    Raises:
      ConfigError: a key or value is wrong, by its name; before the first run.
      PreemptedError: a signal arrived; the runs have saved their states.
    """
    from rlvr_jax import sweeps
    from rlvr_jax.sweeps import grid as grids
    from rlvr_jax.sweeps import plan

    config = _config(config, changes)
    grid = grids.parse(grid, config) if isinstance(grid, str) else grid
    made = plan.make_sweep(Path(folder).expanduser(), config, grid, one_at_a_time, warm_start)
    return sweeps.make(made, at_once, retry, metric, threshold)


def stored(name: str) -> Any:
    """Stored curves of a sweep, to be drawn beneath one's own: `rlvr_jax.plot.curves(found, stored=...)`.

    Args:
      name: of a built-in one, as `rlvr reproduce` lists them, or a file.

    Returns:
      `rlvr_jax.sweeps.stored.Experiment`.

    Raises:
      ConfigError: there are none of that name, or the file is damaged.
    """
    from rlvr_jax.experiments import builtin

    return builtin.curve(name)


def __getattr__(name: str) -> Any:
    if name != "plot":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("rlvr_jax.plot")  # here, because it imports Matplotlib
