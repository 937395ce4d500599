"""Tasks with templates, few-shot examples, and rendered prompts."""

import dataclasses
from collections.abc import Callable

from rlvr_jax import named
from rlvr_jax.errors import FunctionError, error_text
from rlvr_jax.tasks.task import Example, Split, Task, place_of
from rlvr_jax.text.messages import Messages


def worded(task: Task, template: str) -> Task:
    """The task with its prompts worded by a template with the placeholder {question}. An empty one changes nothing.

    Raises:
      ValueError: from `example`, if the prompts are chat messages.
    """
    if not template:
        return task

    def example(split: Split, index: int) -> Example:
        plain = task.example(split, index)
        if not isinstance(plain.prompt, str):
            raise ValueError("a template needs prompts that are text; these are chat messages")
        return dataclasses.replace(plain, prompt=template.replace("{question}", plain.prompt.rstrip("\n")))

    def demonstration(example: Example, index: int) -> str | Messages:
        plain = task.example(*place_of(example))
        return task.demonstration(dataclasses.replace(example, prompt=plain.prompt), index)

    return dataclasses.replace(task, example=example, demonstration=demonstration if task.demonstration else None)


def shots_of(task: Task, count: int) -> list[tuple[str, str]]:
    """The first `count` training problems of a task, each with its demonstration.

    Raises:
      ValueError: the task has no demonstrations, or fewer problems, or its demonstrations have several turns.
    """
    length = task.num_examples("train")
    if count and (task.demonstration is None or (length is not None and length < count)):
        raise ValueError(
            f"shots = {count}, but task {task.name!r} has "
            + ("no demonstrations" if task.demonstration is None else f"{length} training problems")
        )
    examples = [task.example("train", index) for index in range(count)]
    solved = [(example.prompt, task.demonstration(example, 0)) for example in examples]
    if any(not isinstance(answer, str) for _, answer in solved):
        raise ValueError(f"shots = {count}, but the demonstrations of task {task.name!r} have several turns")
    return solved


def rendered(task: Task, label: str, render: Callable[[Example], str]) -> Task:
    """The task under another name, `label`, with its prompts rendered.

    Raises:
      FunctionError: from `example`, whatever the task's own or `render` raises, with the example's id.
    """

    def example(split: Split, index: int) -> Example:
        id = f"{label}/{split}/{index}"
        try:
            plain = task.example(split, index)
            return dataclasses.replace(plain, id=id, prompt=render(plain), task=label, problem=plain.prompt)
        except ValueError as error:
            raise FunctionError(f"{id}: {error}") from error
        except (Exception, SystemExit) as error:
            raise FunctionError(f"{id}: {named.raised_at(error)}: {error_text(error)}") from error

    def demonstration(example: Example, index: int) -> str | Messages:
        plain = task.example(*place_of(example))  # it may be derived from the problem
        return task.demonstration(dataclasses.replace(plain, id=example.id), index)

    demonstration = task.demonstration and demonstration
    return dataclasses.replace(task, name=label, example=example, demonstration=demonstration)
