"""The configuration of a run: frozen dataclasses with all defaults; `config_rules.py` checks their combinations.

Files in `configs/` start from these defaults and state the differences; see `configs/base.py`.
"""

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlvr_jax import typed
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.critic import CriticConfig
from rlvr_jax.learner.optimizer import OptimizerConfig
from rlvr_jax.learner.presets import OF_THE_RUN, PRESETS, preset
from rlvr_jax.learner.supervised import PreferencesConfig, SftConfig
from rlvr_jax.parallel.mesh import MeshConfig, mesh_shape
from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.rollout.config import RolloutConfig
from rlvr_jax.tasks.curriculum import CurriculumConfig
from rlvr_jax.text.prompts import PromptConfig
from rlvr_jax.verifiers.judge import JudgeConfig
from rlvr_jax.verifiers.pool import VerifierConfig

SupervisedRun = Literal["sft", "preferences"]  # the name of its section, too
Run = Literal["sft", "preferences", "rl"]


@dataclass(frozen=True)
class TaskConfig:
    """A source of problems.

    Attributes:
      name: of the task, see `rlvr_jax.tasks.make_task`; empty takes the task's key in `config.tasks`.
      options: keyword arguments of the task.
      weight: its relative share of the training problems; 0 only evaluates it.
      system: system prompt.
      shots: number of solved training problems before each problem (few-shot prompting), from the task's
        demonstrations.
      thinking: whether the model thinks before it answers, see `rlvr_jax.text.prompts`; "default" is the chat
        template's.
      template: wording of the problems, a text with the placeholder {question} for the task's own, which with a `file`
        may also be the name of the field `prompt`; empty for the task's own alone.
      verifier: a kind of `rlvr_jax.verifiers`, `module:function` or `file.py:function`; empty
        takes the task's own.
      verifier_options: keyword arguments of the verifier, in addition to the task's own.
      file: the problems of your own task, instead of `name`: a .jsonl, .json, .csv or .parquet file, or a folder
        of a Hugging Face data set; see docs/own_task.md.
      prompt, reference: the fields of prompt and gold answer in its records; `reference` may be empty for a verifier
        that needs none.
      heldout_file: held-out problems.
      environment: a key of `rlvr_jax.envs.ENVS`, or the `module:function` or `file.py:function` that makes one, see
        docs/extending.md.
      environment_options: keyword arguments of that function.
      heldout_share: share of the problems of `file` that are held out, without a `heldout_file` or a held-out split of
        the folder.
      level: the field of a problem's level in the records of `file`, see `config.curriculum.by`.
      alphabet: further characters of a character tokenizer, such as the marks of tools.
      stage: when the task opens, see `config.curriculum.threshold`.
      steps: the first and the last step that train on it; empty for all.
    """

    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    system: str = ""
    shots: int = 0
    thinking: Literal["default", "on", "off"] = "default"
    template: str = ""
    verifier: str = ""
    verifier_options: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    prompt: str = "prompt"
    reference: str = "reference"
    heldout_file: str = ""
    heldout_share: float = 0.1
    environment: str = "single_turn"
    environment_options: Mapping[str, Any] = field(default_factory=dict)
    level: str = ""
    alphabet: str = ""
    stage: int = 0
    steps: tuple[int, ...] = ()

    @property
    def wording(self) -> str:
        """`template` with the placeholder {question}."""
        return self.template.replace(f"{{{self.prompt}}}", "{question}") if self.file else self.template


@dataclass(frozen=True)
class DataConfig:
    """The folders of data sets.

    Attributes:
      data_dir: folder of prepared data sets.
      manual_dir: folder with the original files of data sets; empty to download them.
    """

    data_dir: str = "~/.cache/rlvr_jax/data"
    manual_dir: str = ""


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation.

    Attributes:
      every: steps between evaluations; step 0 and the last step are evaluated, too.
      problems: held-out problems of each task, or all if it has fewer, for greedy accuracy.
      pass_problems: number of these per task that are also sampled for pass@k, at temperature 1 with `rollout.top_k`
        and `rollout.top_p`.
      pass_samples: samples of each for pass@k.
      ks: the k of pass@k, each at most `pass_samples`.
      shown: problems per task whose completions are logged in samples.jsonl.
    """

    every: int = 10
    problems: int = 256
    pass_problems: int = 64
    pass_samples: int = 8
    ks: tuple[int, ...] = (1, 8)
    shown: int = 16


@dataclass(frozen=True)
class TrainingConfig:
    """The reinforcement learning run.

    Attributes:
      num_steps: steps, each with one rollout batch.
      save_every: steps between checkpoints; the last step is saved, too.
      keep_checkpoints: number of newest checkpoints kept, besides that of step 0.
      keep_every: checkpoints of multiples of this step are kept, too; 0 for none.
      keep_best: number of checkpoints kept, besides, for their held-out greedy accuracy. Only a step that is evaluated
        and saved counts.
      checkpoints: folder for them, which all hosts see: any path that Orbax takes, such as gs://bucket/run; empty for
        that in the workdir.
      max_lag: maximum number of steps by which the sampling policy lags behind the trained one. With k > 0 the next k
        steps are sampled and judged while a step trains; 0 is on-policy.
      max_skipped_in_a_row: the run stops after this many consecutive non-finite updates.
      packing: "none" trains on one row per sample; "prefix_tree" on one row per prompt, followed by all its responses,
        see `rlvr_jax.learner.packing`: the same results, faster by the tokens that are computed once.
      packing_multiple: the responses' share of a packed row is the longest of an update, rounded up to a multiple of
        this many tokens; each length is compiled once. 0 for a single length, that of full responses.
      offload_reference: whether the parameters of a reference policy that stays lie in the host's memory, except while
        they score.
      all_samples: whether all training samples of every step are logged in samples.jsonl, or two groups at step 1 and
        at each evaluation.
      profile: "first:last" step of a trace, such as "10:13", written to `profile` in the workdir, for Perfetto or
        TensorBoard's profile plugin; empty for none. Step 1 is mostly compilation.
      watchdog: seconds after which a phase of a step (rollout, update, evaluation, saving) counts as hanging; then its
        name, the host and the stacks of all threads are printed. 0 for never. The first step also compiles.
      watchdog_ends: whether a phase that hangs ends the run, to be started again.
    """

    num_steps: int = 100
    save_every: int = 50
    keep_checkpoints: int = 2
    keep_every: int = 0
    keep_best: int = 0
    checkpoints: str = ""
    max_lag: int = 0
    max_skipped_in_a_row: int = 5
    packing: Literal["none", "prefix_tree"] = "none"
    packing_multiple: int = 0
    offload_reference: bool = False
    all_samples: bool = False
    profile: str = ""
    watchdog: float = 0.0
    watchdog_ends: bool = False

    @property
    def profiled(self) -> range:
        """The steps of `profile`; none if it is empty or malformed."""
        found = re.fullmatch(r"([1-9]\d*):([1-9]\d*)", self.profile, re.ASCII)
        return range(int(found[1]), int(found[2]) + 1) if found else range(0)


@dataclass(frozen=True)
class Config:
    """A whole run.

    Attributes:
      seed: of all random choices, in [0, 2**32).
      init_from: workdir of an earlier run (SFT or RL) whose newest parameters this run starts from; empty for those of
        `pretrained`, or random ones without it.
      pretrained: folder or hub id of a Hugging Face checkpoint, or a GGUF file; its architecture overrides `policy`.
      shrink: divides the policy's sizes, to try a config on a small machine with random weights; see `policy.shrunk`.
      tokenizer: "characters" (of the tasks' alphabets), "bytes", or the folder or hub id of a Hugging Face one; empty
        takes that of `pretrained`, or "characters" without it. It provides stop tokens, chat template and
        the tokens of an export.
      tasks: sources of problems by name; several form a mixture.
      reward: (name, weight) terms whose weighted sum is the reward, see `rlvr_jax.learner.rewards`.
      reward_models: by name, which a term of the reward then has: the workdir of a run of preferences with the loss
        "bradley_terry", or the folder of its export.
      teacher: whose policy is distilled, see `algorithm.loss` and `algorithm.reference`: the workdir of a run, or the
        folder or hub id of a Hugging Face checkpoint; with the policy's vocabulary, of any size.
      judges: language models that score samples, by name, which a term of the reward then has; or which a task with the
        verifier "judge" names in its `verifier_options`.
      reporting: metric writers besides metrics.jsonl: "tensorboard", "wandb" (Weights & Biases).
    """

    seed: int = 0
    init_from: str = ""
    pretrained: str = ""
    shrink: int = 1
    tokenizer: str = ""
    tasks: Mapping[str, TaskConfig] = field(default_factory=lambda: {"modsum": TaskConfig()})
    prompt: PromptConfig = field(default_factory=PromptConfig)
    data: DataConfig = field(default_factory=DataConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    verifier: VerifierConfig = field(default_factory=VerifierConfig)
    reward: tuple[tuple[str, float], ...] = (("score", 1.0),)
    reward_models: Mapping[str, str] = field(default_factory=dict)
    teacher: str = ""
    judges: Mapping[str, JudgeConfig] = field(default_factory=dict)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    preferences: PreferencesConfig = field(default_factory=PreferencesConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    reporting: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)


def supervised_options(config: Config, run: SupervisedRun) -> SftConfig | PreferencesConfig:
    """The settings of a supervised run of this kind."""
    return config.sft if run == "sft" else config.preferences


def from_dict(data: Mapping[str, Any]) -> Config:
    """The config from nested dictionaries, of a config file or config.json; absent keys take defaults.

    Keys of `algorithm` that are absent or None take the values of `algorithm.preset`.

    Raises:
      ConfigError: an unknown key or a wrong type, by its full name; or an unknown preset.
    """
    start, algorithm = Config(), data.get("algorithm", {}) if isinstance(data, Mapping) else {}
    if isinstance(algorithm, Mapping):
        algorithm = {key: value for key, value in algorithm.items() if value is not None}
        data = {**data, "algorithm": algorithm}
        try:
            start = dataclasses.replace(start, algorithm=preset(str(algorithm.get("preset", ""))))
        except ValueError as error:
            raise ConfigError(f"config.algorithm.preset: {error}") from None
    return typed.record(start, data)


def overridden(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries of a config with other values by full name, such as "algorithm.clip_high", for `from_dict`.

    A preset among the overrides replaces the method of `data`: of the other keys of `algorithm` only those remain that
    are overridden, too, and those of `presets.OF_THE_RUN` that the preset does not set.

    Raises:
      ConfigError: a name goes on below a key that holds a plain value.
    """
    data = {key: dict(value) if isinstance(value, Mapping) else value for key, value in data.items()}
    if "algorithm.preset" in overrides:
        chosen = PRESETS.get(str(overrides["algorithm.preset"]))
        kept = set(OF_THE_RUN) - set(chosen.choices if chosen else ())
        data["algorithm"] = {key: value for key, value in data.get("algorithm", {}).items() if key in kept}
    for name, value in overrides.items():
        *groups, key = name.split(".")
        inner = data
        for i, group in enumerate(groups):
            below = inner.get(group)
            if below is not None and not isinstance(below, Mapping):
                raise ConfigError(f"config.{name}: config.{'.'.join(groups[: i + 1])} has no keys of its own")
            inner[group] = dict(below or {})
            inner = inner[group]
        inner[key] = value
    return data


def to_dict(config: Config) -> dict[str, Any]:
    """Nested dictionaries of plain values, the inverse of `from_dict`."""
    return dataclasses.asdict(config)


def anywhere(config: Config, num_devices: int) -> Config:
    """The config of a run for these devices, all of which sample.

    Its mesh remains if it fits them, so that the parameters are sharded as in the run; otherwise they are replicated.
    """
    mesh = config.mesh
    try:
        mesh_shape(mesh, num_devices)
    except ValueError:
        mesh = MeshConfig()
    return dataclasses.replace(config, mesh=mesh, rollout=dataclasses.replace(config.rollout, devices=0))


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a.b": value}` of nested dictionaries."""
    flat = {}
    for key, value in data.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line `key: old -> new` for each value that differs between two nested dictionaries."""
    old, new, absent = flatten(old), flatten(new), "(absent)"
    plain = lambda x: list(map(plain, x)) if isinstance(x, list | tuple) else x  # noqa: E731  JSON has no tuples
    shown = lambda x: "''" if x == "" else str(x)  # noqa: E731
    return [
        f"{key}: {shown(old.get(key, absent))} -> {shown(new.get(key, absent))}"
        for key in sorted(old.keys() | new.keys())
        if plain(old.get(key, absent)) != plain(new.get(key, absent))
    ]


def check_key(name: str) -> None:
    """Raises ConfigError if a full name, such as "optimizer.lr", is no key; keys of options are not looked at."""
    kind, before = Config, ""
    for key in name.split("."):
        if typing.get_origin(kind) is Mapping:
            kind = typing.get_args(kind)[1]
        elif dataclasses.is_dataclass(kind):
            typed.check_key(key, kind, before)
            kind = typed.hints(kind)[key]
        else:
            return
        before += f"{key}."
