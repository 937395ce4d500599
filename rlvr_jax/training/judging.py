"""Judges of a run: verdicts of the tasks that name one, and terms of the reward, after sampling.

A judge is asked in the process that a group belongs to; all processes have the verdicts. A sample that a judge fails on
is unjudged: its verdict has the error "judge NAME: ...".
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rlvr_jax import judge_rules
from rlvr_jax.config import Config, from_dict
from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation.evaluate import NO_JUDGES, Judging
from rlvr_jax.judges.asking import Ask, no_model, recorded
from rlvr_jax.judges.endpoint import endpoint, identity_of
from rlvr_jax.judges.judge import Judge, Sample, make_judge
from rlvr_jax.judges.local import local
from rlvr_jax.judges.own import own
from rlvr_jax.named import is_name
from rlvr_jax.parallel import Processes
from rlvr_jax.rollout.episode import Episode, Group
from rlvr_jax.training.models import initial_model, load
from rlvr_jax.training.setup import Setup
from rlvr_jax.training.versions import source_of_judge, step_of, version_of
from rlvr_jax.verifiers import failure
from rlvr_jax.verifiers.judge import KIND, POLICY, JudgeConfig
from rlvr_jax.verifiers.verdict import Verdict

FOLDER = "judges"  # of the records, in the workdir


def read_judges(file: str) -> dict[str, JudgeConfig]:
    """The judges of a JSON file, as in `config.judges`. Raises ConfigError if it can't be read, or a key is wrong."""
    try:
        data = json.loads(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--judges={file} can't be read: {error}") from error
    if not isinstance(data, Mapping) or not data:
        raise ConfigError(f"--judges={file} must hold an object, judges by name, as config.judges does")
    try:
        config = from_dict({"judges": data, "pretrained": "that of the command"})
    except ConfigError as error:
        raise ConfigError(f"--judges={file}: {error}") from error
    if wrong := next((message for is_wrong, message in judge_rules.rules(config) if is_wrong), None):
        raise ConfigError(f"--judges={file}: {wrong}")
    return dict(config.judges)


def scored_by(config: Config, by: str, judges: Mapping[str, JudgeConfig] = MappingProxyType({})) -> Config:
    """The config with these judges, too, and if `by` names a judge or a reward model, with its score as the reward.

    Raises:
      ConfigError: there is none of that name.
    """
    config = replace(config, judges={**config.judges, **judges})
    known = (*config.judges, *config.reward_models)
    if by and by not in known:
        names = ", ".join(known) or "none"
        raise ConfigError(f"--by={by}: there is no such judge or reward model; there are {names}")
    return replace(config, reward=((by, 1.0),)) if by else config


def make_ask(name: str, config: JudgeConfig, folder: Path | None, setup: Setup | None = None) -> Ask:
    """The model of a judge, with its record.

    Args:
      name: of the judge.
      config: of the judge.
      folder: of the record, if the config names none.
      setup: of the run whose policy may judge.

    Raises:
      ConfigError, CheckpointError: there is no such model, or its record can't be read.
    """
    folder = Path(config.record).expanduser() if config.record else folder
    identity = identity_of(config)
    start = (setup.config.init_from or setup.config.pretrained) if setup else ""
    if config.model == POLICY and not config.endpoint and setup is not None:
        identity |= {"start": start}
    version = ""
    if not config.endpoint and not config.replay:
        source = source_of_judge(config.model, start)
        version = (setup.versions.get(f"config.judges.{name}") if setup else "") or version_of(source)
    if config.replay:
        ask = no_model
    elif config.endpoint:
        ask = endpoint(config, name)
    elif is_name(config.model):
        ask = own(config.model, name, config.timeout)
    elif config.model == POLICY and setup is None:
        raise ConfigError(f"judge {name!r}: its model 'policy' is for runs; name a checkpoint, or an endpoint")
    else:
        step = step_of(version)
        model = initial_model(setup, step) if config.model == POLICY else _loaded(name, config, step)
        try:
            ask = local(model, config)
        except ValueError as error:
            raise ConfigError(f"judge {name!r}: {config.model!r} has no tokens for a question: {error}") from error
    index = setup.processes.index if setup else 0
    file = folder and folder / f"{name}.jsonl"
    return recorded(ask, file, identity, config.in_flight, config.replay, index, version)


def _loaded(name: str, config: JudgeConfig, step: int | None) -> Any:
    if not config.model:
        raise ConfigError(f"judge {name!r} needs an endpoint and the name of its model, or the folder of a checkpoint")
    try:
        return load(config.model, step=step)
    except Exception as error:
        raise ConfigError(f"judge {name!r}: its model {config.model!r} can't be loaded: {error}") from error


def make_judging(setup: Setup, folder: Path | None, names: Sequence[str] | None = None) -> Judging:
    """The judges of `config.judges`.

    Args:
      setup: of the run.
      folder: of records, see `make_ask`.
      names: of the judges that score all samples; by default those that are terms of the reward.

    Raises:
      ConfigError: a judge can't be asked, or a task leaves its verdicts to none of them.
    """
    config = setup.config
    owners = {label: _owner(setup, label) for label, source in setup.sources.items() if source.task.verifier == KIND}
    asked = [name for name, _ in config.reward] if names is None else names
    terms = tuple(name for name in config.judges if name in asked)
    judges = {}
    for name in dict.fromkeys([*terms, *owners.values()]):
        judges[name] = make_judge(config.judges[name], make_ask(name, config.judges[name], folder, setup), name)
    if not judges:
        return NO_JUDGES

    def verdicts(groups: Sequence[Group]) -> list[Group]:
        groups = list(groups)
        for name in dict.fromkeys(owners.values()):
            own = [i for i, group in enumerate(groups) if owners.get(group.example.task) == name]
            judged = _judged(judges[name], [groups[i] for i in own], setup.processes, waiting=True)
            for i, found in zip(own, judged, strict=True):
                pairs = zip(groups[i].episodes, groups[i].verdicts, found, strict=True)
                groups[i] = replace(groups[i], verdicts=tuple(_decided(name, *pair) for pair in pairs))
        return groups

    def score(name: str, groups: Sequence[Group]) -> list[Group]:
        judged = _judged(judges[name], groups, setup.processes, waiting=False)
        pairs = [zip(group.verdicts, found, strict=True) for group, found in zip(groups, judged, strict=True)]
        return [
            replace(group, verdicts=tuple(_with_score(name, *pair) for pair in both))
            for group, both in zip(groups, pairs, strict=True)
        ]

    return Judging(terms, verdicts, score)


def describe_judges(setup: Setup, verdicts: Sequence[Verdict]) -> dict[str, int]:
    """The number of samples that each judge has failed on, of `config.judges`."""
    errors = [verdict.error or "" for verdict in verdicts]
    failed = {name: sum(x.startswith(_blame(name, "")) for x in errors) for name in setup.config.judges}
    return {f"judge/{name}/unjudged": count for name, count in failed.items()}


def sample_of(episode: Episode) -> Sample:
    """The sample that a judge is shown of an episode."""
    example = episode.example
    return Sample(example.problem or example.prompt, episode.judged, example.reference, example.gold)


def _owner(setup: Setup, label: str) -> str:
    """The judge that a task's verdicts are left to."""
    named, judges = setup.sources[label].task.verifier_options.get("judge", ""), setup.config.judges
    if named in judges or (not named and len(judges) == 1):
        return named or next(iter(judges))
    raise ConfigError(
        f"config.tasks.{label}.verifier = 'judge' with verifier_options = {{'judge': {named!r}}}: config.judges has "
        f"{', '.join(judges) or 'none'}"
    )


def _judged(judge: Judge, groups: Sequence[Group], processes: Processes, waiting: bool) -> list[list[Verdict | None]]:
    """The verdicts on all episodes, by group; None for those that are unjudged anyway.

    With `waiting` the verdicts are not there yet, and only episodes that have failed are not asked about.
    """
    own = range(processes.index, len(groups), processes.count)
    members = [
        (i, j)
        for i in own
        for j, (episode, verdict) in enumerate(zip(groups[i].episodes, groups[i].verdicts, strict=True))
        if (episode.error is None if waiting else verdict.error is None)
    ]
    found = judge([sample_of(groups[i].episodes[j]) for i, j in members]) if members else []
    rows: dict[int, list[Any]] = {i: [None] * len(groups[i].episodes) for i in own}
    for (i, j), verdict in zip(members, found, strict=True):
        rows[i][j] = asdict(verdict)
    merged = processes.merged(rows)
    return [[None if x is None else Verdict(**x) for x in merged[i]] for i in range(len(groups))]


def _blame(name: str, error: str) -> str:
    return f"judge {name}: {error}"


def _decided(name: str, episode: Episode, before: Verdict, found: Verdict | None) -> Verdict:
    """The verdict of a task that leaves it to a judge."""
    if found is None:
        return before
    if found.error:
        return replace(failure(_blame(name, found.error)), parts=episode.parts)
    return replace(found, parts={**found.parts, **episode.parts})


def _with_score(name: str, verdict: Verdict, found: Verdict | None) -> Verdict:
    """A verdict with a judge's score as a part."""
    if found is None:
        return verdict
    if found.error:
        return replace(verdict, score=0.0, error=failure(_blame(name, found.error)).error)
    parts = {**verdict.parts, name: found.score, **{f"{name}/{part}": x for part, x in found.parts.items()}}
    reason = "; ".join(filter(None, (verdict.reason, f"{name}: {found.reason}")))
    return replace(verdict, parts=parts, reason=reason)
