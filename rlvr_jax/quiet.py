"""Libraries without their output."""

import contextlib
import logging
from collections.abc import Iterator
from types import ModuleType


def transformers() -> ModuleType:
    """The module `transformers`, without its warning that PyTorch, which is not used here, is missing."""

    def other(record: logging.LogRecord) -> bool:
        return "PyTorch was not found" not in record.getMessage()

    logger = logging.getLogger("transformers")
    logger.addFilter(other)
    try:
        import transformers as module  # here, because it takes seconds
    finally:
        logger.removeFilter(other)
    return module


@contextlib.contextmanager
def orbax() -> Iterator[None]:
    """Orbax without its log: it names every file that it writes, every item that it leaves out, and errors that it also
    raises."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
