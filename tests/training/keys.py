"""Rows of the table of all keys of the config, and where the effect of a key can be seen without a run."""

import contextlib
import dataclasses
import functools
import operator
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from experiments import command
from rlvr_jax import parallel, policy, tasks
from rlvr_jax.config import Config, from_dict, to_dict
from rlvr_jax.envs import Done, Env, Say
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner import critic, losses
from rlvr_jax.learner.advantages import advantages, signal
from rlvr_jax.learner.batch import Batch, layout
from rlvr_jax.learner.entropy import by_covariance
from rlvr_jax.learner.losses import Loss, policy_gradient
from rlvr_jax.learner.samples import make_samples
from rlvr_jax.learner.step import Learner
from rlvr_jax.policy import PolicyConfig
from rlvr_jax.policy.rotary import rotary
from rlvr_jax.rollout.episode import Group
from rlvr_jax.rollout.replay import Outcome
from rlvr_jax.rollout.requests import Request
from rlvr_jax.rollout.streams import stream_of
from rlvr_jax.tasks import Example, Task
from rlvr_jax.tasks.curriculum import Chosen, Counts
from rlvr_jax.training import checkpoints, functions, history, networks, start, supervised
from rlvr_jax.training.functions import make_collector, make_credit, make_loss, make_sampler
from rlvr_jax.training.rollouts import Rollouts
from rlvr_jax.training.setup import Setup, make_setup, training_mixture
from rlvr_jax.verifiers.pool import Pool
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import episode
from tests.policy.reference import frequencies, random_params
from tests.policy.reference import logits as logits_in_float64
from tests.rollout.scripted import Scripted
from tests.rollout.test_collector import Policy

HERE = "tests.training.keys"  # the functions below that are a user's own


@dataclass(frozen=True)
class Row:
    """A key, and the number that another value of it changes.

    Attributes:
      key: its full name.
      value: another than the plain config has; FILES/ in a text is the folder of `files`.
      seen: config -> what is looked at; or the name of something in the row's run.
      expected: what is seen then, which must not be what the plain config shows; or a function of what the plain
        config shows and of what is seen then, that is True; or `By`.
      beside: other keys of both configs.
    """

    key: str
    value: Any
    seen: Callable[[Config], Any]
    expected: Any
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class By:
    """What is expected is a function of the config, which is computed here in another way."""

    function: Callable[[Config], Any]


def leaves(data: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The full names of all keys that are no groups; options without entries are keys, too."""
    names = []
    for key, value in data.items():
        names += leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [prefix + key]
    return names


def with_keys(config: Config, values: Mapping[str, Any], files: Path | None = None) -> Config:
    """The config with other values of these keys, as a command line would set them."""
    data = to_dict(config)
    for key, value in values.items():
        *groups, name = key.split(".")
        value = _placed(value, files)
        functools.reduce(operator.getitem, groups, data)[name] = value
    return from_dict(data)


def _placed(value: Any, files: Path | None) -> Any:
    """A value with the folder of files in its texts."""
    if isinstance(value, Mapping):
        return {key: _placed(x, files) for key, x in value.items()}
    return value.replace("FILES/", f"{files}/") if isinstance(value, str) else value


def same(a: Any, b: Any) -> bool:
    """Equal, or arrays and numbers that are equal but for rounding."""
    a, b = jax.tree.flatten(a), jax.tree.flatten(b)
    return a[1] == b[1] and all(map(_same, a[0], b[0]))


def _same(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype.kind not in "fiub" or b.dtype.kind not in "fiub":
        return a.shape == b.shape and bool(np.all(a == b))
    return bool(np.allclose(a, b, rtol=0, atol=2e-5 * np.max(np.abs(b), initial=0.0)))


def wrong(row: Row, config: Config, plain: Any, found: Any) -> str:
    """The way in which a key did not change what it should; empty if it did."""
    if callable(row.expected):
        held = row.expected(plain, found)
    else:
        expected = row.expected.function(config) if isinstance(row.expected, By) else row.expected
        held = same(found, expected) and not same(found, plain)
    return "" if held else f"{row.key} = {row.value!r}: {found!r:.300}, and {plain!r:.300} in the plain config"


# What can be seen of a config without a run.


def once_for_each_config(function: Callable[[Config], Any]) -> Callable[[Config], Any]:
    """The function, which remembers its results: many rows have the same plain config."""
    found: dict[str, Any] = {}

    def remembered(config: Config) -> Any:
        key = repr(config)
        if key not in found:
            found[key] = function(config)
        return found[key]

    return remembered


setup_of = once_for_each_config(make_setup)


def of_setup(function: Callable[[Setup], Any]) -> Callable[[Config], Any]:
    """Something of the parts of a run."""
    return lambda config: function(setup_of(config))


def task_of(function: Callable[[Task], Any]) -> Callable[[Config], Any]:
    """Something of the first task."""
    return of_setup(lambda setup: function(next(iter(setup.tasks.values()))))


prompt = task_of(lambda task: task.example("train", 0).prompt)


def split(name: tasks.Split) -> Callable[[Config], Any]:
    """(prompt, reference) of each problem of a finite split."""
    return task_of(
        lambda task: sorted(
            (task.example(name, i).prompt, str(task.example(name, i).reference))
            for i in range(task.num_examples(name) or 0)
        )
    )


def trained(config: Config) -> list[str]:
    """The tasks of the problems of the first eight positions."""
    mixture = training_mixture(setup_of(config))
    return sorted(example.task for example in tasks.batch(mixture, "train", config.seed, 0, 8))


def refusal(config: Config) -> str:
    """Why a config can't run; empty if it can."""
    try:
        make_setup(config)
    except ConfigError as error:
        return str(error)
    return ""


def dropped(config: Config) -> dict[str, int] | None:
    """Problems of each task that are left out because of their length; None if the config is refused."""
    return None if refusal(config) else setup_of(config).dropped


def refused_with(*texts: str) -> Callable[[str, str], bool]:
    """A relation: the plain config runs, and the other one is refused with these texts."""
    return lambda plain, found: not plain and all(text in found for text in texts)


def sampling(name: str) -> Callable[[Config], Any]:
    """A setting of the compiled sampler."""
    return of_setup(lambda setup: getattr(make_sampler(setup).sampling, name))


in_flight = of_setup(lambda setup: make_sampler(setup).in_flight)


def shape(*path: str) -> Callable[[Config], tuple[int, ...]]:
    """The shape of a parameter."""
    return of_setup(lambda ready: functools.reduce(operator.getitem, path, start.param_shapes(ready)).shape)


def on_one_device(*path: str) -> Callable[[Config], tuple[int, ...]]:
    """The shape of the part of a parameter that lies on one device."""

    def seen(ready: Setup) -> tuple[int, ...]:
        leaf = functools.reduce(operator.getitem, path, start.param_shapes(ready))
        return leaf.sharding.shard_shape(leaf.shape)

    return of_setup(seen)


def start_weights(*path: str) -> Callable[[Config], np.ndarray]:
    """A parameter before the first update."""

    def seen(ready: Setup) -> np.ndarray:
        with parallel.use_mesh(ready.mesh):
            params = start.initial_params(ready, jax.random.key(0))
        return np.asarray(functools.reduce(operator.getitem, path, params))

    return of_setup(seen)


def rotations(kind: str) -> tuple[Callable[[Config], np.ndarray], By]:
    """Cosines and sines of the rotary positions 0, 1 and 7 in layers of a kind; and by hand."""

    def seen(ready: Setup) -> np.ndarray:
        found = rotary(ready.policy, kind, jax.device_put(np.array([[0, 1, 7]], np.int32)))
        return np.stack(found)[:, 0, :, 0]

    def expected(ready: Setup) -> np.ndarray:
        shape = ready.policy
        if kind == "unscaled":
            theta = shape.rope_theta_unscaled or shape.rope_theta
            shape = PolicyConfig(rope_theta=theta, head_dim=shape.head_dim)
        found, factor = frequencies(shape)
        angles = np.outer([0, 1, 7], found)
        return factor * np.stack([np.cos(angles), np.sin(angles)])

    return of_setup(seen), By(of_setup(expected))


TOKENS = np.array([[3, 9, 4, 4, 11, 2]])


@of_setup
def logits(ready: Setup) -> np.ndarray:
    """Of a policy in which no norm is 1, and no bias is 0."""
    run = jax.jit(policy.logits, static_argnums=0)
    return np.asarray(run(ready.policy, random_params(ready.policy), TOKENS))[0]


@of_setup
def logits_by_hand(ready: Setup) -> np.ndarray:
    return logits_in_float64(ready.policy, random_params(ready.policy), TOKENS[0])


@of_setup
def adapters(ready: Setup) -> np.ndarray:
    """The change of a weight by adapters that are all ones."""
    shapes = jax.eval_shape(functools.partial(policy.init_with_adapters, ready.policy), jax.random.key(0))
    params = jax.device_put(jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes))
    q = lambda params: params["layers"]["attention"]["q"]  # noqa: E731
    return np.asarray(q(policy.merged(ready.policy, params)) - q(params))


@once_for_each_config
@of_setup
def loss_program(ready: Setup) -> str:
    """The loss as JAX traces it."""
    config = ready.config
    rows, length = config.rollout.prompts * config.rollout.group_size, config.rollout.max_response_length
    batch = layout([[1]] * rows, [[1]] * rows, config.rollout.max_prompt_length, length)
    columns = dict.fromkeys(("advantages", "behaviour", "reference"), batch.action_mask)
    with parallel.use_mesh(ready.mesh):
        traced = jax.jit(make_loss(ready).sums).trace(
            {"policy": start.param_shapes(ready)}, batch.with_columns(**columns)
        )
        return str(traced.jaxpr)


def count(text: str) -> Callable[[Config], int]:
    """How often a text is in the traced loss."""
    return lambda config: loss_program(config).count(text)


@of_setup
def microbatches(ready: Setup) -> int:
    """Those of an update of the policy."""
    found: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions, "make_update", lambda *arguments: found.append(arguments[3]))
        functions.make_training(ready, networks.make_optimizers(ready.config), make_loss(ready))
    return found[0]


def signal_of(name: str, binary: bool = False) -> Callable[[Config], list[float | bool]]:
    """The advantages that the config trains on, or an attribute of its `Signal`, of two groups of two samples.

    The last one was cut off.
    """
    rewards, lengths = [1, 0, 0, 0] if binary else [3, 1, 6, 5], [2, 5, 4, 9]
    samples = make_samples(rewards, [0, 0, 1, 1], lengths=lengths, cut_off=[False, False, False, True], budget=6)

    def seen(ready: Setup) -> list[float | bool]:
        found = signal(ready.config.algorithm, samples, 0, 1)
        of_samples = advantages(ready.config.algorithm, found.samples)
        return (of_samples if name == "advantages" else getattr(found, name)).tolist()

    return of_setup(seen)


@of_setup
def selected(ready: Setup) -> list[list[float]]:
    """The tokens of one update that are selected by covariance; theirs are 2, 1, 0 and 0."""
    batch = layout([[1]], [[1] * 4], 1, 4)
    batch = batch.with_columns(advantages=np.array([[2.0, -1, 0, -1]]), behaviour=np.array([[-1.0, -3, -2, -2]]))
    return by_covariance(ready.config.algorithm, 0, 1, batch).tolist()


class StoppedError(Exception):
    """A run has come to what a test wants to see."""


def memory_of_moments(run: str) -> Callable[[Config], set[str]]:
    """The kinds of memory in which the state of an optimizer lies: that of "rl", "critic", "sft" or "preferences"."""

    def seen(config: Config) -> set[str]:
        ready = make_setup(config, problems=False, run="rl" if run == "critic" else run)
        states = networks.states_of(config, "rl" if run == "critic" else run, ready.policy, ready.mesh)
        state = states.get("critic") or next(iter(states.values()))
        return {x.sharding.memory_kind for x in jax.tree.leaves(state.opt_state)}

    return seen


@functools.cache
def optimizer_of(run: str) -> Callable[[Config], optax.GradientTransformation]:
    """The optimizer of "rl", "critic", "sft" or "preferences"."""

    def seen(config: Config) -> optax.GradientTransformation:
        if run in ("rl", "critic"):
            return networks.make_optimizers(config)["critic" if run == "critic" else "policy"]

        def stop(_, optimizers, *__, **___):
            made.append(optimizers["policy"])
            raise StoppedError

        made: list[Any] = []
        with (
            tempfile.TemporaryDirectory() as folder,
            pytest.MonkeyPatch.context() as patch,
            contextlib.suppress(StoppedError),
        ):
            empty = Mock(spec=ocp.CheckpointManager, latest_step=lambda: None)
            patch.setattr(checkpoints, "open_manager", lambda *_, **__: contextlib.nullcontext(empty))
            patch.setattr(supervised, "start", stop)
            ready = make_setup(config, problems=False, run=run)
            objective = supervised.Objective("policy", losses.imitation(ready.policy))
            supervised.supervise(ready, supervised.Supervised(objective, lambda _: None), Path(folder))
        return made[0]

    return once_for_each_config(seen)


def surrogate(
    ratio: float = 1.0, advantage: float = 1.0, proximal: float = 1.0, reference: float = 1.0, part="loss", shown=False
):
    """A sum of the run's loss, for one action of eight: its `loss`, its `weight`, or the `temperature` of its policy.

    The numbers are the probability of the action under the policy relative to the proximal one, its advantage, and the
    probabilities under the proximal and the reference policy relative to that which has sampled it.
    """

    def score(config, params, batch, temperature):  # noqa: ARG001
        temperatures.append(temperature)
        return jnp.full_like(batch.action_mask, np.log(ratio * proximal) - 1), 0.25 * batch.action_mask

    def seen(ready: Setup) -> float:
        rollout = ready.config.rollout
        rows = layout([[1], [1]], [[1], []], rollout.max_prompt_length, rollout.max_response_length)
        ones = np.ones_like(rows.action_mask)
        columns = {"advantages": advantage * ones, "behaviour": -ones, "proximal": np.log(proximal) - ones}
        columns["demonstrated"] = shown * ones
        batch = jax.device_put(rows.with_columns(**columns, reference=np.log(reference) - ones))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(losses, "score", score)
            sums = make_loss(ready).sums({"policy": None}, batch)
        return temperatures[0] if part == "temperature" else float(getattr(sums, part))

    temperatures: list[float] = []
    return lambda config: (temperatures.clear(), seen(setup_of(config)))[1]


def credit_of(column: str) -> Callable[[Config], Any]:
    """A column, or a metric, of two episodes of a group: two actions and one, with the rewards 1 and 0.

    The first action is twice as likely under the policy as under the reference policy; values are 0.5.
    """

    def seen(ready: Setup) -> Any:
        rollout = ready.config.rollout
        rows = layout([[1], [1]], [[1, 1], [1]], rollout.max_prompt_length, rollout.max_response_length)
        behaviour = np.zeros_like(rows.action_mask)
        behaviour[0, 0] = np.log(2)
        columns = {"behaviour": behaviour, "reference": 0 * behaviour, "values": 0 * behaviour + np.float32(0.5)}
        samples = make_samples([1, 0], [0, 0])
        batch, metrics = make_credit(ready)(Learner({}), rows.with_columns(**columns), np.array([0, 1]), samples)
        found = {name: x[rows.action_mask > 0].tolist() for name, x in batch.columns.items()} | metrics
        return found.get(column)

    return of_setup(seen)


def followed(name: str, kl: float = 0.0) -> Callable[[Config], Any]:
    """What follows the networks after step 2, from 1 for the coefficient of KL, 0.5 for that of entropy, which is 0.3,
    and 0 for the reference; the policy is 1."""

    def seen(ready: Setup) -> Any:
        policy = SimpleNamespace(params={"x": jnp.ones(())})
        others = {"reference": {"x": jnp.zeros(())}, "kl_coef": {"value": np.float32(1)}}
        others["entropy_coef"] = {"entropy": np.float32(0), "value": np.float32(0.5)}
        learner = Learner({"policy": policy}, {name: others[name]})
        learner = functions._followed(ready, learner, {"train/kl_episode": kl, "train/entropy": 0.3}, 2)
        return float(jax.tree.leaves(learner.others)[-1])

    return of_setup(seen)


def squared_error(config: Config) -> float:
    """The critic's loss of a value that has moved from 0 to 1, its return."""
    columns = {"values": np.zeros((1, 1), np.float32), "returns": np.ones((1, 1), np.float32)}
    ready = setup_of(config)
    loss = functions.losses_of(ready, make_loss(ready))["critic"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(critic, "action_values", lambda _, __, batch: jnp.ones_like(batch.action_mask))
        return float(loss.sums({"critic": None}, layout([[1]], [[1]], 1, 1).with_columns(**columns)).loss)


def updates(network: str) -> Callable[[Config], Any]:
    """The number of a network's updates in a run."""
    return lambda config: networks.num_updates(config).get(network)


def critics_embedding(ready: Setup) -> np.ndarray:
    """Of a critic that starts beside a policy of zeros; random numbers are ones."""
    ones = lambda shape, _: jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), policy.critic_shapes(shape))  # noqa: E731
    with parallel.use_mesh(ready.mesh), pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy, "init_critic", ones)
        params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), start.param_shapes(ready))
        return np.asarray(start.initial_critic(ready, params, jax.random.key(0))["embed"])


def played(function: Callable[[Group, list[Request]], Any], *said: str) -> Callable[[Config], Any]:
    """Something of a group of two episodes whose policy says the same in each, a text a turn; and its requests."""

    def seen(config: Config) -> Any:
        ready, policy = setup_of(config), Policy(list(said))
        with Pool(0) as pool:
            collector = make_collector(ready, policy, pool)
            examples = tasks.batch(training_mixture(ready), "train", config.seed, 0, 1)
            collector.start("a", examples, 2, jax.random.key(0), config.rollout.temperature)
            return function(collector.take("a")[0], policy.requests)

    return seen


def patience(config: Config) -> int:
    """The steps for which a collector lets tools run."""
    with Pool(0) as pool:
        return make_collector(setup_of(config), Policy([]), pool).patience


def pool_of(config: Config) -> tuple[int, float, int]:
    """The arguments of the pool that the commands start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlvr_jax.verifiers.pool.Pool", lambda *arguments: arguments)
        return command.pool(config)


# A user's own functions, which rows name.


def places(data_dir: str = "", manual_dir: str = "") -> Task:
    """A task that knows where its data are."""
    example = lambda split, index: Example(f"places/{split}/{index}", f"{data_dir} {manual_dir}", "0", "places")  # noqa: E731
    return Task("places", "modsum", example, lambda _: 1)


def judge(completion: str, reference: Any, *, bonus: float = 0.5) -> dict[str, float]:  # noqa: ARG001
    """Everything is right."""
    return {"score": 1.0, "bonus": bonus}


def again(turns: int = 2) -> Env:
    """Asks for so many turns."""
    step = lambda said, _: (said + 1, Done() if said + 1 == turns else Say("+"))  # noqa: E731
    return Env(lambda example: (0, example.prompt), step)


def rewards_tripled(rewards: np.ndarray, groups: np.ndarray, judged: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """Advantages."""
    return 3 * rewards


def reported_twice(*arguments: Any) -> Loss:
    """The plain loss, which reports the double of itself besides."""
    plain = policy_gradient(*arguments)

    def sums(params: Any, batch: Batch) -> losses.Sums:
        found = plain.sums(params, batch)
        return dataclasses.replace(found, means=found.means | {"train/twice": (2 * found.loss, found.weight)})

    return Loss(sums, plain.needs)


def chosen(of: Callable[[Sequence[tasks.Place]], Any], stage: int = 0, **rates: float) -> Callable[[Config], Any]:
    """Something of the problems that twenty steps choose by these pass rates, of problems of the first task (`of_3`) or
    of tasks."""
    counts = {name.replace("of_", "modsum/"): Counts(8 * p, 8 * (1 - p)) for name, p in rates.items()}

    def seen(ready: Setup) -> Any:
        choice = history.make_choice(ready)
        return of([place for step in range(1, 21) for place in choice(history.History(counts, stage), step, 0).places])

    return of_setup(seen)


def remembered(of: Callable[[history.History], Any], **rates: float) -> Callable[[Config], Any]:
    """Something of the history after a step with four groups of the first task, of which one is all right."""

    def seen(config: Config) -> Any:
        example = Example("modsum/train/0", "1=", "1", "modsum")
        groups = []
        for scores in ([1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.5, 0.0]):
            episodes = tuple(episode([1], example=example) for _ in scores)
            group = Group(example, episodes, tuple(map(Verdict, scores)))
            groups.append(Outcome(("modsum", 0), group, np.array(scores, np.float32), np.ones(2, bool), len(groups)))
        before = history.History({name: Counts(8 * p, 8 * (1 - p)) for name, p in rates.items()})
        nothing_more = lambda *_: Chosen(())  # noqa: E731
        return of(history.advanced(config, nothing_more, before, 1, groups)[0])

    return seen


def further(batch: str | None = None) -> Callable[[Config], Any]:
    """The further episodes of step 1, in which all episodes say "1#2#3" without a reward: the number of their batches,
    or (prompts, samples of each) of one of them."""

    def seen(ready: Setup) -> Any:
        collector = Scripted(ready.tokenizer, lambda *_: 0.0, lambda *_: "1#2#3")
        rollouts = Rollouts(ready, collector, lambda step: stream_of(jax.random.key(step)))
        rollouts.start(1)
        rollouts.take(1)
        if batch is None:
            return len(collector.calls) - 1
        prompts, samples, *_ = collector.calls[f"1 {batch}"]
        return len(prompts) // ready.config.rollout.prompts, samples

    return of_setup(seen)
