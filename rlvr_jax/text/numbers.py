"""Numbers in the text of a policy."""

_DIGITS = 9


def whole(text: str) -> int | None:
    """The number of one to nine ASCII digits; None for any other text.

    `int` alone raises for more than 4300 digits, which would make a policy's text an error of the environment.
    """
    return int(text) if len(text) <= _DIGITS and text.isascii() and text.isdecimal() else None
