"""The rows of the table of keys that need a run; several keys share one, each seen in another place."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rlvr_jax import tasks
from rlvr_jax.config import Config
from rlvr_jax.errors import DivergedError
from rlvr_jax.learner.advantages import advantages as advantages_of
from rlvr_jax.learner.advantages import shuffled
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.samples import make_samples
from rlvr_jax.training import checkpoints, functions, loop, preferences, sft, supervised
from rlvr_jax.training.checkpoints import folder_of
from rlvr_jax.training.setup import make_setup, training_mixture
from rlvr_jax.verifiers.pool import Pool
from tests.training.keys import HERE, By, Row, with_keys, wrong
from tests.training.test_loop import TINY, changed, rows_of, with_advantages

pytestmark = pytest.mark.usefixtures("one_device")

PLAIN = changed(TINY, reward=(("length", 1.0),), evaluation={"every": 9})
PROMPT, GROUP = PLAIN.rollout.max_prompt_length, PLAIN.rollout.group_size


@dataclass
class Run:
    """What a run has done.

    Attributes:
      rows, samples: of metrics.jsonl and samples.jsonl.
      starts: name of a batch of episodes -> (examples, group size, key, temperature), when it was started last.
      batches: handed to each update; and packed.
      states: parameters before each update, and after the last one.
      saved: the steps after which a checkpoint was written.
      kept: how many checkpoints: the newest ones, those of a multiple, the best ones.
      in_flight: the steps whose groups are in the checkpoint of a step.
      traced: (begun or ended, updates before that) of the profiler.
      watched: the limit of the watchdog, and whether it ends the run.
      error: that ended the run.
    """

    workdir: Path
    rows: list[dict] = field(default_factory=list)
    samples: list[dict] = field(default_factory=list)
    starts: dict[Any, tuple] = field(default_factory=dict)
    batches: list[Any] = field(default_factory=list)
    packed: list[Any] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    kept: tuple[int, ...] = ()
    in_flight: dict[int, list[str]] = field(default_factory=dict)
    traced: list[tuple[str, int]] = field(default_factory=list)
    watched: tuple[float, bool] = (0.0, False)
    error: str = ""


def host(tree: Any) -> Any:
    return jax.tree.map(np.asarray, tree)


def recorded(config: Config, workdir: Path, broken: bool = False) -> Run:
    """A run of reinforcement learning; `broken` makes all of its advantages NaN."""
    run = Run(workdir)
    make_collector, make_update, make_jitted = loop.make_collector, functions.make_update, functions.make_jitted_update
    save, open_manager, watchdog = checkpoints.save, checkpoints.open_manager, loop.watchdog

    def collector(*arguments):
        made = make_collector(*arguments)
        start = made.start

        def started(name, examples, group_size, key, temperature):
            run.starts[int(name) if str(name).isdecimal() else name] = (
                examples,
                group_size,
                key.tolist(),
                temperature,
            )
            start(name, examples, group_size, key, temperature)

        made.start = started
        return made

    def update(*arguments):
        do = make_update(*arguments)

        def updated(states, batch):
            run.states[-1:] = [host(states["policy"].params)]
            run.batches.append(host(batch))
            states, metrics = do(states, batch)
            run.states.append(host(states["policy"].params))
            return states, metrics

        return updated

    def jitted(*arguments):
        do = make_jitted(*arguments)
        return lambda states, batch: (run.packed.append(host(batch)), do(states, batch))[1]

    def saving(manager, state, step, host=None, accuracy=None):
        run.saved.append(step)
        run.in_flight[step] = list(host or {})
        save(manager, state, step, host, accuracy)

    def opened(workdir, *arguments):
        run.kept = arguments[:3]
        return open_manager(workdir, *arguments)

    def watched(*arguments):
        run.watched = arguments[:2]
        return watchdog(*arguments)

    with pytest.MonkeyPatch.context() as patch, Pool(0) as pool:
        patch.setattr(loop, "watchdog", watched)
        patch.setattr(loop, "make_collector", collector)
        patch.setattr(functions, "make_update", update)
        patch.setattr(functions, "make_jitted_update", jitted)
        patch.setattr(checkpoints, "save", saving)
        patch.setattr(checkpoints, "open_manager", opened)
        patch.setattr(jax.profiler, "start_trace", lambda _: run.traced.append(("begun", len(run.batches))))
        patch.setattr(jax.profiler, "stop_trace", lambda: run.traced.append(("ended", len(run.batches))))
        if broken:
            with_advantages(patch, range(99))
        try:
            loop.train(config, workdir, pool)
        except DivergedError as error:
            run.error = str(error)
    run.rows, run.samples = rows_of(workdir), rows_of(workdir, "samples.jsonl")
    return run


# What can be seen of a run.


def of_rows(name: str) -> Callable[[Run], list[Any]]:
    """A metric at the steps that have it."""
    return lambda run: [row[name] for row in run.rows[1:] if name in row]


def evaluated(run: Run) -> list[int]:
    return [row["step"] for row in run.rows if "eval/greedy_accuracy" in row]


def heldout_samples(run: Run) -> int:
    """Samples of held-out problems at each evaluation."""
    return sum(sample["split"] == "heldout" for sample in run.samples) // len(evaluated(run))


def passes(run: Run) -> set[str]:
    return {name for name in run.rows[0] if name.startswith("eval/pass@") and name[-1].isdigit()}


def started(name: Any, part: int) -> Callable[[Run], Any]:
    """A batch of episodes: the (0) number of its examples, its (1) group size, (2) key or (3) temperature."""
    return lambda run: len(run.starts[name][0]) if part == 0 else run.starts[name][part]


def problems(run: Run) -> dict[int, list[str]]:
    """The problems of each step."""
    return {step: [example.prompt for example in run.starts[step][0]] for step in (1, 2)}


def next_problems(config: Config) -> dict[int, list[str]]:
    """The problems of each step, from the mixture."""
    mixture = training_mixture(make_setup(config))
    examples = {step: tasks.batch(mixture, "train", config.seed, step - 1, config.rollout.prompts) for step in (1, 2)}
    return {step: [example.prompt for example in found] for step, found in examples.items()}


def first_advantages(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Advantage and length of each sample of the first update."""
    batch = run.batches[0]
    return batch.columns["advantages"][:, 0], batch.action_mask.sum(axis=1)


def step_advantages(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Advantage and length of each sample of the first of two steps."""
    batches = run.batches[: len(run.batches) // 2]
    return tuple(
        np.concatenate(x)
        for x in ([b.columns["advantages"][:, 0] for b in batches], [b.action_mask.sum(axis=1) for b in batches])
    )


def groups_are_equal(size: int) -> Callable[[Run], bool]:
    """Whether the samples of each group of the first update are the same."""

    def seen(run: Run) -> bool:
        tokens = run.batches[0].tokens.reshape(-1, size, run.batches[0].tokens.shape[1])
        return bool((tokens == tokens[:, :1]).all())

    return seen


def first_ratio(run: Run) -> float:
    """The proximal policy's probabilities relative to the sampler's, before the first update; 0 if there are none."""
    batch = run.batches[0]
    if "proximal" not in batch.columns:
        return 0.0
    ratio = np.exp(batch.columns["proximal"] - batch.columns["behaviour"])[batch.action_mask > 0]
    return float(ratio[np.argmax(abs(ratio - 1))])


def training_samples(run: Run, step: int) -> int:
    """How many of a step are logged."""
    return sum((row["step"], row["split"]) == (step, "train") for row in run.samples)


def first_change(run: Run) -> float:
    """The largest change of a parameter by the first update."""
    before, after = (jax.tree.leaves(tree) for tree in run.states[:2])
    return max(float(np.abs(b - a).max()) for a, b in zip(before, after, strict=True))


def key_of(seed: int, stream: int, step: int) -> list[int]:
    key = functools.reduce(jax.random.fold_in, (stream, step), jax.random.key(seed))
    return jax.random.key_data(key).tolist()


def three_times_shuffled_lengths(_, found) -> bool:
    """The seed is 1."""
    advantages, lengths = found
    expected = 3 * shuffled(lengths, np.ones(len(lengths), bool), 1, 1)
    return np.allclose(advantages, expected) and not np.allclose(advantages, 3 * lengths)


reward_of_a_token = lambda run: run.rows[1]["train/reward"] / run.rows[1]["train/response_length"]  # noqa: E731
twice_the_loss = lambda run: [row.get("train/twice", 0) / row["train/loss"] for row in run.rows[1:]]  # noqa: E731
goes_on = lambda plain, found: np.array_equal(found[0], plain[1]) and not np.array_equal(found[0], plain[0])  # noqa: E731
first_and_last = lambda run: (run.states[0]["embed"], run.states[-1]["embed"])  # noqa: E731

# The rows of each run: all of its keys are changed at once.
RUNS = {
    "counts": [
        Row("rollout.prompts", 16, started(1, 0), 16),
        Row("rollout.group_size", 2, started(1, 1), 2),
        Row("rollout.max_response_length", 5, lambda run: run.batches[0].action_mask.shape, (32, 5)),
        Row("reward", (("length", 2.0),), reward_of_a_token, 2.0),
        Row("optimizer.learning_rate", 0.006, of_rows("train/learning_rate"), [0.006] * 3),
        Row("training.num_steps", 3, lambda run: [row["step"] for row in run.rows], [0, 1, 2, 3]),
        Row("training.save_every", 2, lambda run: run.saved, [0, 2, 3]),
        Row("training.keep_checkpoints", 1, lambda run: checkpoints.complete_steps(run.workdir), [0, 3]),
        Row("training.checkpoints", "FILES/elsewhere", lambda run: folder_of(run.workdir).name, "elsewhere"),
        Row("training.profile", "2:2", lambda run: run.traced, [("begun", 1), ("ended", 2)]),
        Row("training.watchdog", 900.0, lambda run: run.watched[0], 900.0),
        Row("training.watchdog_ends", True, lambda run: run.watched[1], True),
        Row("reporting", (), lambda run: (run.workdir / "tensorboard").exists(), False),
        Row("evaluation.every", 1, evaluated, [0, 1, 2, 3]),
        Row("evaluation.problems", 6, started("greedy", 0), 6),
        Row("evaluation.pass_problems", 3, started("pass@k", 0), 3),
        Row("evaluation.pass_samples", 2, started("pass@k", 1), 2),
        Row("evaluation.ks", (2,), passes, {"eval/pass@2"}),
        Row("evaluation.shown", 1, heldout_samples, 1),
        Row("training.max_lag", 1, of_rows("train/lag"), [0.0, 1.0, 1.0]),
        Row("training.max_lag", 1, lambda run: run.in_flight, {0: [], 2: ["3"], 3: []}),
        Row("rollout.top_k", 1, groups_are_equal(2), True),
        Row("rollout.top_p", 1e-6, groups_are_equal(2), True),
        # Sampled tokens are certain after the filters, and their weight is their probability before.
        Row("algorithm.proximal", "recompute", first_ratio, lambda _, found: 0 < found < 1),
        Row("algorithm.correction", "token_tis", of_rows("train/importance_weight"),
            lambda plain, found: plain == [] and all(0 < x < 1 for x in found)),
        Row("rollout.temperature", 0.5, started(2, 3), 0.5),
    ],
    "updates": [
        Row("rollout.prompts", 16, started(2, 0), 16),
        Row("seed", 1, started(1, 2), key_of(1, loop.SAMPLE, 1)),
        Row("seed", 1, started(2, 2), key_of(1, loop.SAMPLE, 2)),
        Row("seed", 1, started("greedy", 2), key_of(1, loop.EVALUATE, 2)),
        Row("seed", 1, problems, By(next_problems)),
        Row("init_from", "FILES/plain", first_and_last, goes_on),
        Row("rollout.max_turn_length", 2, lambda run: int(run.batches[0].action_mask.sum(axis=1).max()), 2),
        Row("algorithm.minibatches", 2, lambda run: (len(run.batches), len(run.batches[0].tokens)), (4, 32)),
        Row("training.all_samples", True, lambda run: training_samples(run, 2), 16 * GROUP),
        Row("training.keep_every", 5, lambda run: run.kept, (9, 5, 1)),
        Row("training.keep_best", 1, lambda run: run.kept, (9, 5, 1)),
        Row("training.packing", "prefix_tree", lambda run: len(run.packed[0].tokens), 8),
        Row("training.packing_multiple", 12, lambda run: run.packed[0].action_mask.shape[1], 12),
        Row("algorithm.proximal", "recompute", first_ratio, 1.0),
        Row("rollout.temperature", 0.7, first_ratio, 1.0),
        Row("algorithm.advantage", f"{HERE}:rewards_tripled", step_advantages, three_times_shuffled_lengths),
        Row("algorithm.shuffle_rewards", True, step_advantages, three_times_shuffled_lengths),
        Row("algorithm.loss", f"{HERE}:reported_twice", twice_the_loss, [2.0, 2.0]),
        Row("algorithm.kl_coef", 0.0, of_rows("train/kl"), []),
        Row("algorithm.reference", "none", of_rows("train/kl"), []),
        Row("optimizer.warmup_steps", 4, of_rows("train/learning_rate"), [0.0, 0.0015]),
        Row("evaluation.pass_problems", 0, passes, set()),
    ],
    "broken": [
        Row("training.max_skipped_in_a_row", 1, lambda run: run.error[:18], "step 1: 1 updates "),
    ],
}  # fmt: skip
SFT = [
    Row("sft.num_steps", 8, lambda run: [row["step"] for row in run.rows], [1, 4, 8]),
    Row("sft.updates_per_call", 4, lambda run: [row["step"] for row in run.rows], [1, 4, 8]),
    Row("sft.batch_size", 32, lambda run: run.batches[0].tokens.shape[1:], (32, 10)),
    Row("sft.save_every", 4, lambda run: run.saved, [0, 4, 8]),
    Row("sft.optimizer.microbatches", 2, lambda run: run.packed[0], 2),
    Row("sft.optimizer.learning_rate", 0.01, lambda run: run.rows[-1]["train/learning_rate"], 0.01 * 1 / 6),
    Row("sft.optimizer.warmup_steps", 2, lambda run: run.rows[-1]["train/learning_rate"], 0.01 * 1 / 6),
    Row("sft.optimizer.decay", "linear", lambda run: run.rows[-1]["train/learning_rate"], 0.01 * 1 / 6),
]
PREFERENCES = [
    Row("preferences.num_steps", 8, lambda run: [row["step"] for row in run.rows], [0, 1, 4, 8]),
    Row("preferences.updates_per_call", 4, lambda run: [row["step"] for row in run.rows], [0, 1, 4, 8]),
    Row("preferences.batch_size", 32, lambda run: run.batches[0].tokens.shape[1:], (32, 10)),
    Row("preferences.save_every", 4, lambda run: run.saved, [0, 4, 8]),
    Row("preferences.optimizer.microbatches", 2, lambda run: run.packed[0], 2),
]
ROWS = [*(row for rows in RUNS.values() for row in rows), *SFT, *PREFERENCES]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def plain(files):
    return recorded(PLAIN, files / "plain")


@pytest.mark.parametrize("name", RUNS)
def test_the_keys_of_a_run_change_what_they_should(name, plain, files, tmp_path):
    config = with_keys(PLAIN, {row.key: row.value for row in RUNS[name]}, files)
    run = recorded(config, tmp_path / "run", broken=name == "broken")
    assert [x for row in RUNS[name] if (x := wrong(row, config, row.seen(plain), row.seen(run)))] == []


def test_in_the_plain_run_the_problems_of_a_step_are_the_next_ones_of_the_mixture(plain):
    assert problems(plain) == next_problems(PLAIN)


def test_in_the_plain_run_an_advantage_is_the_length_relative_to_the_groups(plain):
    advantages, lengths = first_advantages(plain)
    expected = advantages_of(AlgorithmConfig(), make_samples(lengths, np.arange(len(lengths)) // GROUP))
    np.testing.assert_allclose(advantages, expected, atol=1e-5)
    assert np.abs(expected).max() > 0


def test_in_the_plain_run_the_first_update_changes_parameters_by_the_learning_rate(plain):
    assert first_change(plain) == pytest.approx(PLAIN.optimizer.learning_rate, rel=1e-4)


def imitated(config, workdir, run_it=sft.sft):
    """A supervised run whose updates change nothing: their batches and microbatches, and what it saved."""
    run, save = Run(workdir), checkpoints.save

    def updates(_, __, microbatches):
        run.packed.append(microbatches)
        return lambda states, batches: (run.batches.append(batches), (states, {}))[1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervised, "make_jitted_updates", updates)
        patch.setattr(checkpoints, "save", lambda *args: (run.saved.append(args[2]), save(*args)))
        run_it(config, workdir)
    run.rows = rows_of(workdir)
    return run


def test_the_keys_of_a_warm_start_change_what_they_should(tmp_path):
    config = with_keys(PLAIN, {row.key: row.value for row in SFT})
    plain, run = imitated(PLAIN, tmp_path / "plain"), imitated(config, tmp_path / "run")
    assert [x for row in SFT if (x := wrong(row, config, row.seen(plain), row.seen(run)))] == []


def test_the_keys_of_a_run_of_preferences_change_what_they_should(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(f'{{"prompt": "{i}=", "chosen": "{i}", "rejected": "#"}}\n' for i in range(10)))
    options = {"sources": {"mine": {"file": str(path)}}, "loss": "simpo", "heldout_share": 0.0}
    sizes = {"num_steps": 6, "updates_per_call": 2, "save_every": 6, "batch_size": 16}
    before = with_keys(PLAIN, {f"preferences.{key}": value for key, value in (options | sizes).items()})
    config = with_keys(before, {row.key: row.value for row in PREFERENCES})
    plain, run = (imitated(x, tmp_path / name, preferences.prefer) for x, name in ((before, "plain"), (config, "run")))
    assert [x for row in PREFERENCES if (x := wrong(row, config, row.seen(plain), row.seen(run)))] == []
