"""A function of the user in the place of a judge's model: rules that need none, or a client of another API."""

from collections.abc import Sequence

from rlvr_jax import named
from rlvr_jax.errors import ConfigError
from rlvr_jax.judges.asking import Answer, Ask
from rlvr_jax.text.messages import Messages


def own(model: str, name: str = "judge") -> Ask:
    """The answers of a function (messages of a question) -> text of the answer. What it raises is an answer's error.

    `prompts.shown` reads the parts of a question.

    Args:
      model: `module:function` or `file.py:function`.
      name: of the judge, for errors.

    Raises:
      ConfigError: there is no such function.
    """
    try:
        named.check_arguments(model, "messages")
    except ValueError as error:
        raise ConfigError(f"config.judges.{name}.model: {error}") from error
    function = named.load(model)

    def answer(chat: Messages) -> Answer:
        try:
            said = function(chat)
        except Exception as error:
            return Answer(error=f"{named.raised_at(error, model)}: {type(error).__name__}: {error}")
        return Answer(said) if isinstance(said, str) else Answer(error=f"{model} returned no text, but {said!r:.80}")

    def ask(chats: Sequence[Messages]) -> list[Answer]:
        return [answer(chat) for chat in chats]

    return ask
