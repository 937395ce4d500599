"""The metric that a sweep compares: whether its runs measure it, before they are made."""

from collections.abc import Callable, Mapping

from rlvr_jax import named
from rlvr_jax.config import Config
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.credit import has_critic
from rlvr_jax.reporting import jsonl
from rlvr_jax.reporting.names import is_known, nearest
from rlvr_jax.sweeps.plan import Run
from rlvr_jax.training.history import chooses

METRIC = "eval/greedy_accuracy"

# Beginnings of names, and the choices with which alone there are such metrics.
_NEEDS: Mapping[str, tuple[str, Callable[[Config], bool]]] = {
    "critic/": ("config.algorithm.baseline = 'value'", lambda c: has_critic(c.algorithm)),
    "curriculum/": ("config.curriculum or stages of tasks", chooses),
    "replay/": ("config.algorithm.replay", lambda c: c.algorithm.replay > 0),
    "judge/": ("config.judges", lambda c: bool(c.judges)),
    "train/kl": (
        "config.algorithm.reference or kl_reward_coef",
        lambda c: c.algorithm.reference != "none" or c.algorithm.kl_reward_coef > 0,
    ),
    "train/unfiltered": ("config.algorithm.max_draws above 1", lambda c: c.algorithm.max_draws > 1),
    "rollout/draws": ("config.algorithm.max_draws above 1", lambda c: c.algorithm.max_draws > 1),
    "train/greedy_reward": ("config.algorithm.baseline = 'greedy'", lambda c: c.algorithm.baseline == "greedy"),
    "train/tracked_reward": ("config.algorithm.baseline = 'tracker'", lambda c: c.algorithm.baseline == "tracker"),
    "train/teacher": ("config.algorithm.loss = 'distillation'", lambda c: c.algorithm.loss == "distillation"),
    "preferences/": ("config.algorithm.loss = 'preferences'", lambda c: c.algorithm.loss == "preferences"),
    "sft/": ("a supervised run, and these are of reinforcement learning", lambda _: False),
    "data/": ("a supervised run, and these are of reinforcement learning", lambda _: False),
}


def check_metric(config: Config, metric: str) -> None:
    """Refuses a metric that runs of the config, the base of a sweep, don't measure.

    A loss of the user's own may have metrics of any name; see `check_measured`.

    Raises:
      ConfigError: with the names that it may stand for, or the keys that it needs.
    """
    where, passes = f"--metric={metric}", [f"pass@{k}" for k in config.evaluation.ks if config.evaluation.pass_problems]
    known = [METRIC, *(f"eval/{x}" for x in (*passes, "response_length", "errors"))]
    known += [f"eval/judge/{name}" for name in config.judges]
    if metric.startswith("eval/") and metric not in known:
        raise ConfigError(f"{where}: the runs measure {', '.join(known)}; config.evaluation.ks sets others")
    of_task = ("greedy_accuracy", *passes, "reward", "accuracy", "response_length", "turns")
    known = [f"task/{label}/{x}" for label in config.tasks for x in of_task]
    of_role = any(metric.startswith(f"task/{label}/") and metric.endswith("/reward") for label in config.tasks)
    if metric.startswith("task/") and metric not in known and not of_role:
        raise ConfigError(f"{where}: the runs measure {', '.join(known)}")
    if not is_known(metric) and not named.is_name(config.algorithm.loss):
        near = nearest(metric)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        raise ConfigError(f"{where}: docs/metrics.md lists no such metric{hint}")
    for beginning, (needed, measured) in _NEEDS.items():
        if metric.startswith(beginning) and not measured(config):
            raise ConfigError(f"{where} is measured with {needed} only, which the base of the sweep lacks")


def check_measured(run: Run, metric: str) -> None:
    """Refuses a metric that a finished run has not measured, before others are made in vain.

    Raises:
      ConfigError: with the names that it may stand for.
      ValueError: the file of its metrics is damaged; the message names it.
    """
    path = run.folder / "metrics.jsonl"
    names = {name for row in jsonl.read(path) for name in row}
    if metric not in names:
        near = nearest(metric, sorted(names)) or sorted(names)
        raise ConfigError(f"--metric={metric}: {path} has no such metric; the nearest are {', '.join(near)}")
