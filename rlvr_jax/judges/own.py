"""A function of the user in the place of a judge's model: rules that need none, or a client of another API."""

from collections.abc import Callable, Sequence
from typing import Any

from rlvr_jax import named
from rlvr_jax.errors import ConfigError, error_text
from rlvr_jax.judges.asking import Answer, Ask
from rlvr_jax.text.messages import Messages
from rlvr_jax.time_limit import time_limits


def own(model: str, name: str = "judge", seconds: float | None = None) -> Ask:
    """The answers of a function (messages of a question) -> text of the answer. What it raises is an answer's error.

    `prompts.shown` reads the parts of a question.

    Args:
      model: `module:function` or `file.py:function`.
      name: of the judge, for errors.
      seconds: maximum time of an answer; None for no limit.

    Raises:
      ConfigError: there is no such function.
    """
    try:
        named.check_arguments(model, "messages")
    except ValueError as error:
        raise ConfigError(f"config.judges.{name}.model: {error}") from error
    function = named.load(model)

    def answer(chat: Messages, limited: Callable[..., Any]) -> Answer:
        try:
            said = limited(function, chat)
        except (Exception, SystemExit) as error:
            return Answer(error=f"{named.raised_at(error, model)}: {error_text(error)}")
        return Answer(said) if isinstance(said, str) else Answer(error=f"{model} returned no text, but {said!r:.80}")

    def ask(chats: Sequence[Messages]) -> list[Answer]:
        with time_limits(seconds) as limited:
            return [answer(chat, limited) for chat in chats]

    return ask
