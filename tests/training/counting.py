"""A task and an environment with a tool, whose calls are counted: episodes of one to four turns."""

from rlvr_jax.envs import Call, Done, Env, Say, ToolCall
from rlvr_jax.tasks import Example, Task

HERE = "tests.training.counting"
CALLS: list[str] = []  # of the tool, in this process


def numbers():
    """Problems whose answer is a digit."""
    example = lambda split, index: Example(f"n/{split}/{index}", f"{index % 9}?", str(index % 9), task="n")  # noqa: E731
    return Task("n", f"{HERE}:found", example, lambda _: 90, alphabet="0123456789?#")


def found(completion, reference):
    return reference in completion


def digit(text):
    """The tool."""
    CALLS.append(text)
    return len(text) % 10


def asking(turns=4, ends="0123459"):
    """An environment that calls a tool after each turn but the last; `ends` are characters that end a turn."""

    def step(state, text):
        if state == turns or text.endswith("9"):
            return state, Done()
        return state + 1, Call((ToolCall(f"{HERE}:digit", (text,)),))

    receive = lambda state, results: (state, Say(str(results[0].value)))  # noqa: E731
    return Env(lambda example: (1, example.prompt), step, receive, ends=tuple(ends))
