"""How a problem becomes the text that the policy continues: as it is, by a chat template, or by a plain one.

A chat template is the tokenizer's own (Jinja), and the prompt is its rendering, to the letter. Base models have none:
they get a plain text with places for system prompt and problem, in the style of DeepSeek-R1-Zero.

Whether a model thinks before it answers: templates that know `enable_thinking` (Qwen3, SmolLM3) are told; for any other
prompt, "on" opens a `<think>` at its end, and "off" adds nothing.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

from rlvr_jax.tasks.task import Example, Messages, Split, Task, place_of
from rlvr_jax.text.tags import THINK, opens_thinking

# DeepSeek-R1 (arXiv:2501.12948), table 1, with a place for a system prompt.
R1_ZERO = (
    "{system}A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
    "assistant first thinks about the reasoning process in the mind and then provides the user with the answer. The "
    "reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, "
    "i.e., <think> reasoning process here </think> <answer> answer here </answer>. User: {prompt}. Assistant:"
)


def renderer(
    tokenizer: Any,
    kind: Literal["plain", "chat", "template"],
    template: str,
    system: str = "",
    thinking: Literal["default", "on", "off"] = "default",
    shots: Sequence[tuple[str, str]] = (),
) -> Callable[[str | Messages], str]:
    """The function from a problem, text or chat messages, to the prompt.

    Args:
      tokenizer: of the policy; its chat template counts for "chat" only.
      kind: "plain" is the problem alone, which ends with a line break where the answer starts on a line of its own;
        the others leave that out. "chat" is the tokenizer's chat template, or `template` if it has none;
        "template" always `template`.
      template: text with the places {system}, which takes the system prompt and a line break, and {prompt}.
      system: system prompt; empty for none.
      thinking: see the module.
      shots: (problem, answer) pairs to put before the problem: earlier turns of the chat, or text.

    Raises:
      ValueError: the chat template can't be rendered with these, or a system prompt has no place. Or by the function:
        the messages need a chat template, or have a system prompt beside `system`.
    """
    chat = getattr(tokenizer, "chat_template", None) if kind == "chat" else None
    if kind == "plain":
        if system:
            raise ValueError("a system prompt needs prompt format 'chat' or 'template', it is 'plain'")
        before = "".join(f"{problem}{answer}\n\n" for problem, answer in shots)
        return lambda problem: _thinking(before + _single(problem), thinking)
    if chat is None:
        if system and "{system}" not in template:
            raise ValueError("there is a system prompt, but the template has no place {system}")
        start = template.replace("{system}", f"{system}\n" if system else "")  # not str.format: problems hold braces
        again = template.replace("{system}", "")
        asked = lambda text, problem: text.replace("{prompt}", _single(problem).rstrip("\n"))  # noqa: E731
        solved = [f"{asked(again if turn else start, q)} {answer}\n\n" for turn, (q, answer) in enumerate(shots)]
        before, last = "".join(solved), again if shots else start
        return lambda problem: _thinking(before + asked(last, problem), thinking)

    switch = {} if thinking == "default" else {"enable_thinking": thinking == "on"}
    knows_switch = "enable_thinking" in (chat if isinstance(chat, str) else str(chat))

    def render(problem: str | Messages) -> str:
        if isinstance(problem, str):
            problem = ({"role": "user", "content": problem.rstrip("\n")},)
        elif system and problem[0]["role"] == "system":
            raise ValueError("the messages have a system prompt, and the task's config another one")
        messages = [{"role": "system", "content": system}] * bool(system)
        for question, answer in shots:
            messages.append({"role": "user", "content": question.rstrip("\n")})
            messages.append({"role": "assistant", "content": answer})
        messages.extend(problem)
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **switch)
        except Exception as error:  # Jinja's own errors, and what templates raise
            raise ValueError(
                f"the chat template of the tokenizer can't be rendered{' with a system prompt' if system else ''}: "
                f"{type(error).__name__}: {error}. Prompt format 'template' does without it"
            ) from error
        return text if knows_switch else _thinking(text, thinking)

    render("1 + 1 = ?")  # what is wrong with the template is known before any long work
    return render


def _thinking(prompt: str, thinking: str) -> str:
    return f"{prompt}{THINK}\n" if thinking == "on" and not opens_thinking(prompt) else prompt


def _single(problem: str | Messages) -> str:
    """The problem as one text, for prompts without a chat template."""
    if isinstance(problem, str):
        return problem
    if len(problem) > 1 or problem[0]["role"] != "user":
        roles = ", ".join(message["role"] for message in problem)
        raise ValueError(f"messages of {roles} need prompt format 'chat' and a tokenizer with a chat template")
    return problem[0]["content"]


def worded(task: Task, template: str) -> Task:
    """The task with its problems worded by a template: text with the place {question}. An empty one changes nothing.

    Raises:
      ValueError: by its examples, if their prompts are chat messages.
    """
    if not template:
        return task

    def example(split: Split, index: int) -> Example:
        plain = task.example(split, index)
        if not isinstance(plain.prompt, str):
            raise ValueError("a template words problems that are text, these are chat messages")
        return dataclasses.replace(plain, prompt=template.replace("{question}", plain.prompt.rstrip("\n")))

    def demonstration(example: Example, index: int) -> str:
        plain = task.example(*place_of(example))
        return task.demonstration(dataclasses.replace(example, prompt=plain.prompt), index)

    return dataclasses.replace(task, example=example, demonstration=demonstration if task.demonstration else None)


def shots_of(task: Task, count: int) -> list[tuple[str, str]]:
    """The first `count` training problems of a task, each with its demonstration.

    Raises:
      ValueError: the task has no demonstrations, or fewer problems.
    """
    length = task.num_examples("train")
    if count and (task.demonstration is None or (length is not None and length < count)):
        raise ValueError(
            f"shots = {count}, but task {task.name!r} has "
            + ("no demonstrations" if task.demonstration is None else f"{length} training problems")
        )
    examples = [task.example("train", index) for index in range(count)]
    return [(example.prompt, task.demonstration(example, 0)) for example in examples]


def rendered(task: Task, label: str, render: Callable[[str | Messages], str]) -> Task:
    """The task under another name, `label`, with its prompts rendered."""

    def example(split: Split, index: int) -> Example:
        plain = task.example(split, index)
        id = f"{label}/{split}/{index}"
        return dataclasses.replace(plain, id=id, prompt=render(plain.prompt), task=label)

    return dataclasses.replace(task, name=label, example=example)
