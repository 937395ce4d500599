"""Learning from preferences: the policy, or a reward model."""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlvr_jax import parallel, tasks
from rlvr_jax.config import Config
from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation.preferences import accuracy, calibration, describe
from rlvr_jax.learner.batch import Batch, layout
from rlvr_jax.learner.packing import pack
from rlvr_jax.learner.preferences import (
    LOSSES,
    columns_of,
    kl_baseline,
    of_completions,
    pairs_of,
    preference_loss,
    values_of,
)
from rlvr_jax.learner.scores import score
from rlvr_jax.learner.step import Learner, dealt
from rlvr_jax.parallel import Processes
from rlvr_jax.policy import Params
from rlvr_jax.reporting import files
from rlvr_jax.reporting.calibration import calibration_png
from rlvr_jax.tasks.conversations import Preference, read_preferences
from rlvr_jax.text.prompts import renderer
from rlvr_jax.training.setup import Setup, make_setup
from rlvr_jax.training.sft import encoded
from rlvr_jax.training.sources import Rows, mixed, mixture_of, read_rows
from rlvr_jax.training.supervised import Objective, Supervised, stacked, supervise
from rlvr_jax.training.workdir import HELDOUT, REFERENCE


@dataclasses.dataclass(frozen=True)
class Pair:
    """A prompt and two completions in tokens, the chosen one first; or a single one, and one of another prompt.

    Attributes:
      number: among the training rows of the run; -1 for held-out ones.
      words: the text of the prompt, by whose hash pairs are held out.
      margin, good: see `Preference`.
    """

    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    words: str
    margin: float = 1.0
    good: bool = True
    number: int = -1


def prefer(config: Config, workdir: Path, processes: Processes | None = None) -> Path:
    """Starts or resumes learning from `config.preferences`, as `supervised.supervise` does."""
    options = config.preferences
    if not options.sources:
        raise ConfigError(
            "config.preferences.sources is empty: name files of preferences, as {'mine': {'file': 'pairs.jsonl'}}"
        )
    setup = make_setup(config, problems=False, run="preferences", processes=processes)
    rows, heldout = pair_rows(setup)
    reference: dict[int, Any] = {}  # filled once the initial policy is known
    run = Supervised(
        preference_objective(setup),
        partial(batches_of, setup, rows, heldout, reference, workdir),
        evaluate=_evaluation(setup, heldout, reference, workdir),
        facts=rows.facts,
    )
    return supervise(setup, run, workdir)


def preference_objective(setup: Setup) -> Objective:
    """The loss of the config, and what its updates compute before."""
    options = setup.config.preferences
    chosen = LOSSES[options.loss]
    prepared = None if chosen.paired else _with_baseline(setup)
    return Objective(chosen.network, preference_loss(setup.policy, options), prepared)


def pair_rows(setup: Setup) -> tuple[Rows, list[Pair]]:
    """The pairs to train on, of each source of `config.preferences`, and those held out."""
    options, rollout = setup.config.preferences, setup.config.rollout
    paired = LOSSES[options.loss].paired
    prompt = setup.config.prompt
    render = renderer(setup.tokenizer, prompt.format, prompt.template, date=prompt.date)
    facts: dict[str, float] = {}

    def made(number: int, records: Sequence[Preference]) -> list[Pair | str]:
        ids = encoded(setup.tokenizer, [_rendered(render, record) for record in records])
        pairs = [x if isinstance(x, str) else _pair(setup, record, x) for record, x in zip(records, ids, strict=True)]
        lengths = [len(x) for pair in pairs if isinstance(pair, Pair) for x in pair.completions] or [0]
        name, most = list(options.sources)[number], rollout.max_response_length
        facts[f"data/{name}/truncated"] = float(np.mean([length > most for length in lengths]))
        facts[f"data/{name}/length"] = float(np.mean(lengths))
        pairs = [x if isinstance(x, str) else _fitted(setup, x) for x in pairs]
        return pairs if paired else _with_others(pairs)

    read = partial(read_preferences, paired=paired)
    found = read_rows(setup, "preferences", options.sources, read, made, "preferences")
    trained, heldout = _split(found.of, options.heldout_share)
    facts |= {f"data/{name}/heldout": len(found.of[name]) - len(trained[name]) for name in trained}
    return Rows(trained, {**found.facts, **facts}), heldout


def _rendered(render: Callable[..., str], record: Preference) -> tuple[tuple[str, bool], ...] | str:
    try:
        return ((render(record.prompt), False), *((text, True) for text in record.completions))
    except ValueError as error:
        return str(error)


def _pair(setup: Setup, record: Preference, ids: Sequence[Sequence[int]]) -> Pair:
    completions = tuple((*x, setup.end_token) for x in ids[1:])
    words = record.prompt if isinstance(record.prompt, str) else json.dumps(record.prompt)
    return Pair(tuple(ids[0]), completions, " ".join(words.split()), record.margin, record.good)


def _fitted(setup: Setup, pair: Pair) -> Pair | str:
    rollout, most = setup.config.rollout, setup.config.rollout.max_response_length
    if len(pair.prompt) > rollout.max_prompt_length:
        return f"have a prompt longer than {rollout.max_prompt_length} tokens (config.rollout.max_prompt_length)"
    if max(map(len, pair.completions)) > most and setup.config.preferences.overlong == "drop":
        return f"have a completion longer than {most} tokens (config.rollout.max_response_length)"
    cut = tuple(x[:most] for x in pair.completions)
    if len(cut) == 2 and cut[0] == cut[1]:
        return f"have completions that are equal in their first {most} tokens"
    return dataclasses.replace(pair, completions=cut)


def _with_others(rows: Sequence[Pair | str]) -> list[Pair | str]:
    """Single completions, each with that of the next row of another prompt: y' of "kto", see `preferences.kto`."""
    real = [row for row in rows if isinstance(row, Pair)]
    others: dict[int, tuple[int, ...]] = {}
    for i, row in enumerate(real):
        after = (real[(i + step) % len(real)] for step in range(1, len(real)))
        other = next((x for x in after if x.words != row.words), None)
        if other is None:
            raise ConfigError("config.preferences.loss = 'kto' needs completions of different prompts")
        others[id(row)] = other.completions[0]
    return [
        row if isinstance(row, str) else dataclasses.replace(row, completions=(*row.completions, others[id(row)]))
        for row in rows
    ]


def _split(rows: Mapping[str, Sequence[Pair]], share: float) -> tuple[dict[str, list[Pair]], list[Pair]]:
    """Numbered rows to train on and held-out ones, without a common prompt; at least one prompt is held out.

    Raises:
      ConfigError: none would remain to train on.
    """
    place_of = {row.words: tasks.uniform("split", row.words) for found in rows.values() for row in found}
    below = max(share, np.nextafter(min(place_of.values()), 1)) if share > 0 else 0.0
    numbered: dict[str, list[Pair]] = {}
    heldout: list[Pair] = []
    number = 0
    for name, found in rows.items():
        numbered[name] = []
        for row in found:
            row = dataclasses.replace(row, number=number)
            number += 1
            (heldout if place_of[row.words] < below else numbered[name]).append(row)
        if not numbered[name]:
            raise ConfigError(
                f"config.preferences.heldout_share = {share} leaves no pair of the source {name} to train on"
            )
    return numbered, heldout


# Batches, and what a forward pass says of them.


def make_pairs(setup: Setup, pairs: Sequence[Pair], reference: Mapping[int, Any] | None = None) -> Batch:
    """Pairs as rows: two for each, the chosen one first, or with `packing` one."""
    options, rollout = setup.config.preferences, setup.config.rollout
    prompts = [pair.prompt for pair in pairs for _ in range(2)]
    completions = [completion for pair in pairs for completion in pair.completions]
    batch = layout(prompts, completions, rollout.max_prompt_length, rollout.max_response_length)
    of_rows = lambda values: np.repeat(np.asarray(values, np.float32), 2)[:, None] * batch.action_mask  # noqa: E731
    columns = {"pair_margin": of_rows([pair.margin for pair in pairs]), "good": of_rows([pair.good for pair in pairs])}
    if reference is not None:
        columns["reference"] = np.zeros_like(batch.action_mask)
        columns["reference"][batch.action_mask > 0] = np.concatenate([reference[pair.number] for pair in pairs])
    needs = {*columns_of(options)} - {"baseline"}
    batch = batch.with_columns(**{name: x for name, x in columns.items() if name in needs})
    return pack(batch, 2, _multiple(setup)) if options.packing == "prefix_tree" else batch


def _multiple(setup: Setup) -> int:
    """The unit of a packed row's length, so that few lengths are compiled."""
    return -(-2 * setup.config.rollout.max_response_length // 4)


def _parts(setup: Setup, pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Pairs in parts of the size of a microbatch, the last filled up by its first pair."""
    size = setup.config.preferences.batch_size // setup.config.preferences.optimizer.microbatches
    parts = [list(pairs[i : i + size]) for i in range(0, len(pairs), size)]
    return [part + part[:1] * (size - len(part)) for part in parts]


def reference_logprobs(setup: Setup, params: Params, pairs: Sequence[Pair]) -> dict[int, Float[np.ndarray, "_"]]:
    """The log-probs of the tokens of both completions of each pair, by its number, one completion after the other."""
    sharding, jitted = parallel.batch_sharding(setup.mesh), make_jitted_reference(setup)
    found: dict[int, Float[np.ndarray, _]] = {}
    for part in _parts(setup, pairs):
        batch = make_pairs(setup, part).replace(columns={})
        values = np.asarray(parallel.readable(jitted(params, parallel.put(batch, sharding))))
        for row, pair in enumerate(part):
            # The actions of a pair in their order are its tokens, in both layouts.
            rows = slice(row, row + 1) if batch.parents is not None else slice(2 * row, 2 * row + 2)
            found[pair.number] = values[rows][batch.action_mask[rows] > 0]
    return found


def make_jitted_reference(setup: Setup) -> jax.stages.Wrapped:
    """The jitted function (params, part of the pairs) -> log-prob of each action."""
    return jax.jit(
        lambda params, batch: score(setup.policy, params, batch, 1.0)[0],
        out_shardings=parallel.batch_sharding(setup.mesh),
    )


def longest_pairs(setup: Setup, number: int) -> Batch:
    """The batch of so many pairs of full length, for its shapes."""
    rollout = setup.config.rollout
    completion = (0,) * rollout.max_response_length
    pairs = [Pair((0,) * rollout.max_prompt_length, (completion,) * 2, "", number=i) for i in range(number)]
    reference = {pair.number: np.zeros(2 * len(completion), np.float32) for pair in pairs}
    return make_pairs(setup, pairs, reference)


def batches_of(
    setup: Setup, rows: Rows, heldout: Sequence[Pair], reference: dict[int, Any], workdir: Path, initial: Any
) -> Callable[[int, int], Batch]:
    """The function from the numbers of updates so far and in the next call to the batches of that.

    The log-probs of the reference policy, the one that the run starts from, are computed for all pairs of the run
    before the first update, and kept in `REFERENCE`.
    """
    config, options = setup.config, setup.config.preferences
    mixture = mixture_of(rows.of, options.sources)
    of_step = lambda step: mixed(rows.of, mixture, config.seed, step, options.batch_size)  # noqa: E731
    if LOSSES[options.loss].reference:
        used = {pair.number: pair for step in range(options.num_steps) for pair in of_step(step)}
        used |= {pair.number: pair for pair in heldout}
        _fill_reference(setup, list(used.values()), reference, workdir, initial)

    def batches(done: int, count: int) -> Batch:
        pairs = [pair for step in range(done, done + count) for pair in of_step(step)]
        return stacked(setup, make_pairs(setup, pairs, reference or None), count)

    return batches


def _fill_reference(
    setup: Setup, pairs: Sequence[Pair], reference: dict[int, Any], workdir: Path, initial: Callable[[], Params]
) -> None:
    """Adds the log-probs of these pairs to `reference`, and to its file; those of the file are not computed again."""
    path, digest = workdir / REFERENCE, hashlib.blake2b(digest_size=16)
    for pair in sorted(pairs, key=lambda pair: pair.number):
        digest.update(repr((pair.number, pair.prompt, pair.completions)).encode())
    key = digest.hexdigest()
    saved = _read_reference(path, key)
    if saved is None:
        found = reference_logprobs(setup, initial(), pairs)
        numbers = sorted(found)
        saved = {
            "key": np.array(key),
            "numbers": np.array(numbers),
            "lengths": np.array([len(found[n]) for n in numbers]),
            "values": np.concatenate([found[n] for n in numbers]),
        }
        if setup.processes.index == 0:
            buffer = io.BytesIO()
            np.savez(buffer, **saved)
            files.replace(path, buffer.getvalue())
    parts = np.split(saved["values"], np.cumsum(saved["lengths"])[:-1])
    reference.update(zip(saved["numbers"].tolist(), parts, strict=True))


def _read_reference(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """The content of the file, if it is whole and of these pairs."""
    try:
        with np.load(path) as saved:
            found = {name: saved[name] for name in ("key", "numbers", "lengths", "values")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return found if str(found["key"]) == key else None


def _with_baseline(setup: Setup) -> Callable[[Any, Batch], Batch]:
    """The function (states, batch) -> the batch with the column "baseline" of "kto", that of the whole batch."""
    options = setup.config.preferences
    chosen, together = LOSSES[options.loss], 1 if options.packing == "prefix_tree" else 2

    def of_part(params: Params, part: Batch) -> tuple[Float[Array, ""], Float[Array, ""]]:
        pairs = pairs_of(part, values_of(setup.policy, chosen, params, part))
        return kl_baseline(pairs, of_completions(part, part.action_mask)[:, 0] > 0)

    def prepared(states: Any, batch: Batch) -> Batch:
        parts = dealt(batch, options.optimizer.microbatches, together)
        totals, counts = jax.lax.map(partial(of_part, states["policy"].params), parts)
        baseline = jnp.maximum(jnp.sum(totals) / jnp.maximum(jnp.sum(counts), 1), 0.0)
        return batch.with_columns(baseline=baseline * batch.action_mask)

    return prepared


def make_jitted_rewards(setup: Setup) -> jax.stages.Wrapped:
    """The jitted function (params, part of the pairs) -> reward of both completions of each."""
    options = setup.config.preferences
    chosen = LOSSES[options.loss]

    def of_part(params: Params, batch: Batch) -> Float[Array, "pairs 2"]:
        _, rewards = chosen.losses(options, pairs_of(batch, values_of(setup.policy, chosen, params, batch)))
        return rewards

    return jax.jit(of_part)


def _evaluation(
    setup: Setup, heldout: Sequence[Pair], reference: Mapping[int, Any], workdir: Path
) -> Callable[[Learner, bool], dict[str, float]]:
    """The function (learner, whether the run ends) -> metrics of the held-out pairs. At the end it writes `HELDOUT` and
    the picture of the calibration."""
    options = setup.config.preferences
    chosen, sharding, jitted = LOSSES[options.loss], parallel.batch_sharding(setup.mesh), make_jitted_rewards(setup)

    def evaluate(learner: Learner, ends: bool) -> dict[str, float]:
        if not heldout:
            return {}
        params, found = learner.states[chosen.network].params, []
        for part in _parts(setup, heldout):
            batch = make_pairs(setup, part, reference or None)
            found.append(np.asarray(parallel.readable(jitted(params, parallel.put(batch, sharding)))))
        rewards = np.concatenate(found)[: len(heldout)].astype(np.float64)
        if not chosen.paired:
            good = np.array([pair.good for pair in heldout])
            return accuracy(((rewards[:, 0] > max(rewards[:, 1].mean(), 0.0)) == good).astype(float))
        lengths = np.array([[len(x) for x in pair.completions] for pair in heldout], float)
        metrics = describe(rewards, lengths)
        if ends and setup.processes.index == 0:
            bins = calibration(rewards[:, 0] - rewards[:, 1])
            told = metrics | {"reward_mean": rewards.mean(), "reward_std": rewards.std()}
            told |= {"calibration": [dataclasses.asdict(x) for x in bins]}
            files.replace(workdir / HELDOUT, json.dumps(told, indent=1).encode())
            files.replace(workdir / "calibration.png", calibration_png(bins, f"{options.loss}, held-out pairs"))
        return metrics

    return evaluate
