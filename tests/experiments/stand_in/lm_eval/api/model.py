"""Models, and what they are asked."""

from dataclasses import dataclass


@dataclass
class Instance:
    args: tuple


class LM:
    """All models are subclasses of it."""
