"""The problems of a run: its tasks, their environments and prompts."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rlvr_jax import named, tasks
from rlvr_jax.config import Config
from rlvr_jax.envs import Call, Env, begin, checked, is_single_turn, make_env, single_turn
from rlvr_jax.errors import ConfigError, error_text, file_error
from rlvr_jax.judges.prompts import text_of
from rlvr_jax.rollout.playing import Source
from rlvr_jax.tasks import Example, Task
from rlvr_jax.tasks.finite import redrawn, subset
from rlvr_jax.text.messages import Messages
from rlvr_jax.text.prompts import Tools, continuation, renderer, shortener, window_prompt
from rlvr_jax.text.tokenizers import encode, encode_batch, lacking
from rlvr_jax.time_limit import time_limits
from rlvr_jax.verifiers import verifier_of, verify
from rlvr_jax.verifiers.jobs import call_of

_log = logging.getLogger(__name__)
_CHECKED_PROMPTS = 256  # of unbounded tasks
_MOST_DRAWN = 1_000_000  # held-out problems of an unbounded task: to draw more takes minutes


def make_task(config: Config, label: str) -> Task:
    """The task of a config under its name there. Raises ConfigError, naming the key, if it can't be made."""
    task, data = config.tasks[label], config.data
    own = dict(task.verifier_options)
    try:
        if task.verifier:
            verifier_of(task.verifier)  # for its errors
        if task.file:
            check = partial(wrong_reference, task.verifier, own)
            columns = task.prompt, task.reference
            heldout = task.heldout_file, task.heldout_share
            return tasks.file_task(label, task.file, *columns, task.verifier, own, *heldout, check, task.level)
        made = tasks.make_task(task.name or label, task.options, data_dir=data.data_dir, manual_dir=data.manual_dir)
    except OSError as error:
        if not task.file:
            raise
        heldout = task.heldout_file and error.filename == str(Path(task.heldout_file).expanduser())
        key = "heldout_file" if heldout else "file"
        raise ConfigError(f"config.tasks.{label}.{key}: {file_error(error)}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.tasks.{label}: {error}") from error
    options = own if task.verifier else {**made.verifier_options, **own}
    return replace(made, verifier=task.verifier or made.verifier, verifier_options=options)


def wrong_reference(verifier: str, options: Mapping[str, Any], reference: Any) -> str | None:
    """The reason why a built-in verifier rejects a gold answer; None if it doesn't, or if the check is slow."""
    if named.is_name(verifier) or verifier in ("code", "judge"):
        return None
    return verify(verifier, "", reference, **options).error


def make_envs(config: Config, plain: Mapping[str, Task]) -> dict[str, Env]:
    """The environment of each task, tried on a problem.

    Raises:
      ConfigError: one can't be made, or fails on an empty turn; names the task's key.
    """
    envs = {}
    for label, task in plain.items():
        options, key = config.tasks[label], f"config.tasks.{label}.environment"
        try:
            env = envs[label] = make_env(options.environment, options.environment_options)
            with time_limits(config.verifier.timeout) as limited:
                if env.check is not None:
                    limited(env.check, first_example(task))
                state, _ = limited(begin, env, first_example(task))
                _, action = checked(env, limited(env.step, state, ""))
            for call in action.calls if isinstance(action, Call) else ():
                call_of(call)  # for its errors
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from error
        except (Exception, SystemExit) as error:
            name = options.environment if named.is_name(options.environment) else ""
            raise ConfigError(f"{key}: {named.raised_at(error, name)}: {error_text(error)}") from error
    return envs


def first_example(task: Task) -> Example:
    """Some problem of a task."""
    return task.example("train" if task.num_examples("train") != 0 else "heldout", 0)


def sources(config: Config, prompted: Mapping[str, Task], envs: Mapping[str, Env], tokenizer: Any) -> dict[str, Source]:
    """The tasks with their environments, for rollouts."""
    prompt, shorten = config.prompt, shortener(tokenizer)
    envs = {label: env if env.fitted is None else env.fitted(shorten) for label, env in envs.items()}
    observers = {
        label: continuation(tokenizer, prompt.format, config.tasks[label].thinking, prompt.date, envs[label].tools)
        for label in prompted
    }
    ends = {label: _single_tokens(label, tokenizer, envs[label].ends) for label in prompted}
    for label, observe in observers.items():
        key = f"config.tasks.{label}.environment_options"
        for said in envs[label].says:
            _check_observation(key, said, envs[label].worded_by, observe, tokenizer)
        if envs[label].tools and config.rollout.max_turns == 1:
            _log.warning("config.rollout.max_turns is 1: no call of a tool is answered in config.tasks.%s", label)
    _check_sequences(config, envs)
    _check_roles(config, envs)
    found = {label: Source(task, envs[label], observers[label], ends[label]) for label, task in prompted.items()}
    return {
        label: source if source.env.one_sequence else _with_sequences(config, label, source, tokenizer)
        for label, source in found.items()
    }


def _check_sequences(config: Config, envs: Mapping[str, Env]) -> None:
    """Raises ConfigError if episodes may not have the context windows, or these not the tokens, that they need."""
    most, length = config.rollout.max_sequences, config.rollout.max_response_length
    several = [label for label, env in envs.items() if not env.one_sequence]
    if several and most == 1:
        raise ConfigError(
            f"config.tasks.{several[0]}.environment makes episodes of several context windows, and "
            "config.rollout.max_sequences = 1; set the largest number of them"
        )
    if most > 1 and not several:
        _log.warning(
            "config.rollout.max_sequences is %d, and no environment begins new context windows: all rows of a sample "
            "but one are padding", most,
        )  # fmt: skip
    for label, env in envs.items():
        if env.asked and config.rollout.in_flight != "finish":
            raise ConfigError(
                f"config.rollout.in_flight = {config.rollout.in_flight!r} keeps turns over an update, and those of "
                f"{env.asked}, which config.tasks.{label}.environment asks, can't be; use 'finish'"
            )
        if env.reserve >= length:
            raise ConfigError(
                f"config.rollout.max_response_length = {length} leaves no tokens to a turn: the environment of "
                f"config.tasks.{label} reserves {env.reserve}"
            )


def _check_roles(config: Config, envs: Mapping[str, Env]) -> None:
    """Raises ConfigError if the samples of a problem are not those of whole games."""
    samples = config.rollout.group_size - config.algorithm.demonstrations
    for label, env in envs.items():
        if not env.roles or not config.tasks[label].weight:
            continue
        game = f"config.tasks.{label}.environment plays games of {len(env.roles)} roles"
        if samples % len(env.roles):
            raise ConfigError(
                f"{game}, and config.rollout.group_size gives {samples} samples of each problem; set a multiple of "
                f"{len(env.roles)}"
            )
        if config.algorithm.loss == "preferences":
            raise ConfigError(
                f"{game}, and config.algorithm.loss = 'preferences' compares the best with the worst sample of a "
                "problem, which have different prompts then; use 'policy_gradient'"
            )
        if config.algorithm.baseline in ("greedy", "monte_carlo"):
            raise ConfigError(
                f"{game}, and config.algorithm.baseline = {config.algorithm.baseline!r} samples further episodes, "
                "which would lack the other roles; use 'group_mean' or 'leave_one_out'"
            )


def _with_sequences(config: Config, label: str, source: Source, tokenizer: Any) -> Source:
    """The source with prompts of further context windows, which have no solved examples, and the source of `Ask`."""
    options, prompt, env = config.tasks[label], config.prompt, source.env
    render = renderer(
        tokenizer, prompt.format, prompt.template, options.system, options.thinking, (), prompt.date, env.tools
    )
    inner = env.inner or single_turn()
    ends = _single_tokens(label, tokenizer, inner.ends)
    source = replace(source, prompt=window_prompt(tokenizer, render))
    within = replace(source, env=inner, ends=ends, policy=source.policy or env.asked)
    return replace(source, inner=within if inner.one_sequence else _with_sequences(config, label, within, tokenizer))


def _check_observation(
    key: str, said: str | Messages, worded_by: str, observe: Callable[[str | Messages, int], list[int]], tokenizer: Any
) -> None:
    """Raises ConfigError if an observation that may be made has no tokens."""
    text = said if isinstance(said, str) else "".join(message["content"] for message in said)
    try:
        if observe(said, -1):
            return
        more = ""
        why = f"the observation {text!r} has no tokens"
    except ValueError as error:
        lacks = lacking(tokenizer, [text])
        if not lacks:
            raise ConfigError(f"{key}: the observation {text!r:.200}: {error}") from error
        more = "use config.tokenizer = 'bytes', which has every character"
        why = f"the tokenizer has no {' '.join(map(repr, lacks))} of the observation {text!r:.200}"
    remedies = ", or ".join(filter(None, (worded_by and f"set {worded_by}", more)))
    raise ConfigError(f"{key}: {why}" + (f"; {remedies}" if remedies else ""))


def _single_tokens(label: str, tokenizer: Any, texts: Sequence[str]) -> tuple[int, ...]:
    """The tokens of those marks at the end of calls that are single tokens."""
    vocabulary = tokenizer.get_vocab() if texts else {}
    known = [text for text in texts if len(text) == 1 or text in vocabulary]
    try:
        return tuple(ids[0] for ids in encode_batch(tokenizer, known) if len(ids) == 1)
    except ValueError as error:
        raise ConfigError(
            f"config.tasks.{label}.environment_options: of format_options, the mark at the end of a call: {error}"
        ) from error


def prompted_tasks(
    config: Config, plain: Mapping[str, Task], envs: Mapping[str, Env], tokenizer: Any, trains: bool = True
) -> tuple[dict[str, Task], dict[str, int]]:
    """The tasks with rendered prompts, without overlong ones, and the number dropped from each.

    Training problems are needed, and looked at, if it `trains` on any and for tasks with a weight only.

    Raises:
      ConfigError: prompts can't be rendered, encoded or dropped; names the task's key.
    """
    fitting = {}
    for label, task in plain.items():
        try:
            env = envs[label]
            if env.roles:  # a greedy response to a held-out problem has no other role to play with
                task = replace(task, num_examples=partial(_trained_only, task))
            prompted = _with_prompts(config, label, task, env, tokenizer)
            trained = trains and config.tasks[label].weight > 0
            fitting[label] = _fitting_prompts(config, prompted, tokenizer, env.added, trained)
        except ConfigError:
            raise
        except ValueError as error:  # of a prompt that can't be rendered or encoded
            said = envs[label].tools.instructions if envs[label].tools else ""
            where, less = f"config.tasks.{label}", ""
            if lacking(tokenizer, [said]):
                where, less = f"{where}.environment_options: the instructions", "; instructions = '' are none"
            raise ConfigError(f"{where}: {error}{less}") from error
    return {label: task for label, (task, _) in fitting.items()}, {label: n for label, (_, n) in fitting.items()}


def _trained_only(task: Task, split: tasks.Split) -> int | None:
    return 0 if split == "heldout" else task.num_examples(split)


def hinting(config: Config, label: str, tokenizer: Any, hint: str) -> Callable[[Example], Example]:
    """The function from a problem of a task to the same with a hint in its prompt, and in nothing else.

    Args:
      config, label: of the task.
      tokenizer: of the policy.
      hint: the wording, with the places {question} and {answer}; of messages that of the last one.

    Raises:
      ConfigError: as `make_task`. ValueError, also from the function: the prompt can't be rendered.
    """
    render, _ = _rendering(config, label, make_task(config, label), tokenizer)

    def hinted(example: Example) -> Example:
        answer = example.gold or text_of(example.reference)
        worded = lambda text: hint.replace("{question}", text.rstrip("\n")).replace("{answer}", answer)  # noqa: E731
        problem = example.problem
        if isinstance(problem, str):
            return replace(example, prompt=render(worded(problem)))
        *before, last = problem
        return replace(example, prompt=render((*before, {**last, "content": worded(last["content"])})))

    return hinted


def _rendering(
    config: Config, label: str, task: Task, tokenizer: Any, tools: Tools | None = None
) -> tuple[Callable[[str | Messages], str], Task]:
    """The function from a problem to its prompt, and the task with its problems worded."""
    prompt, options = config.prompt, config.tasks[label]
    task = tasks.worded(task, options.wording)
    shots = tasks.shots_of(task, options.shots)
    system, thinking = options.system, options.thinking
    return renderer(tokenizer, prompt.format, prompt.template, system, thinking, shots, prompt.date, tools), task


def _with_prompts(config: Config, label: str, task: Task, env: Env, tokenizer: Any) -> Task:
    render, task = _rendering(config, label, task, tokenizer, env.tools)
    if is_single_turn(env):
        return tasks.rendered(task, label, lambda example: render(begin(env, example)[1]))

    def prompt_of(example: Example) -> str:
        with time_limits(config.verifier.timeout) as limited:
            return limited(lambda: render(begin(env, example)[1]))

    return tasks.rendered(task, label, prompt_of)


def _fitting_prompts(config: Config, task: Task, tokenizer: Any, added: int, trained: bool) -> tuple[Task, int]:
    """The task with only the problems whose prompts fit, also with `added` tokens, and the number that don't.

    Every prompt of a finite task is checked; of an unbounded one a sample, and overlong prompts are replaced by others.
    If it is trained on, problems for that must remain.
    """
    rollout, where = config.rollout, f"config.tasks.{task.name}"
    most = rollout.max_prompt_length - added
    if trained and task.num_examples("train") == 0:
        raise ConfigError(f"{where}: it has no training problems; weight=0 only evaluates it")
    kept: dict[tasks.Split, list[int]] = {"train": [], "heldout": []}
    dropped, endless = 0, False
    for split in ("train",) * trained + ("heldout",):
        count = task.num_examples(split)
        endless |= count is None
        if count is None and split == "heldout" and config.evaluation.problems > _MOST_DRAWN:
            raise ConfigError(
                f"config.evaluation.problems = {config.evaluation.problems}, and {where} has no end of them; set at "
                f"most {_MOST_DRAWN}"
            )
        examples = [task.example(split, i) for i in range(_CHECKED_PROMPTS if count is None else count)]
        if named.is_name(config.tasks[task.name].name):
            for example in examples:
                _check_reference(example)
        lengths = [len(ids) for ids in encode_batch(tokenizer, [example.prompt for example in examples])]
        kept[split] = [i for i, length in enumerate(lengths) if length <= most]
        too_long = len(lengths) - len(kept[split])
        dropped += too_long
        if too_long and (rollout.overlong_prompts == "refuse" or not kept[split]):
            longest = examples[lengths.index(max(lengths))]
            choices = "; or config.rollout.overlong_prompts='drop' leaves such out" if kept[split] else ""
            line = task.line(*tasks.place_of(longest))
            later = f", less the {added} that later context windows add to it" if added else ""
            raise ConfigError(
                f"the prompt of {longest.id}{f' ({line})' if line else ''} has {max(lengths)} tokens, more than "
                f"config.rollout.max_prompt_length = {rollout.max_prompt_length}{later}; raise it, and "
                f"config.policy.max_length where a prompt and a response do not fit that{choices}"
            )
    if endless and rollout.overlong_prompts == "drop":
        fits = lambda prompt: len(encode(tokenizer, prompt)) <= most  # noqa: E731
        return redrawn(task, fits), dropped
    return (subset(task, kept) if dropped else task), dropped


def _check_reference(example: Example) -> None:
    """Raises ValueError if the reference can't be written to samples.jsonl."""
    try:
        json.dumps(example.reference, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the reference of {example.id} must be plain JSON data: {error}") from error
