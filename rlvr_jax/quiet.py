"""The import of `transformers`, without what it prints."""

import logging
from types import ModuleType


def transformers() -> ModuleType:
    """The module. It warns when it is imported that it can't find PyTorch, which nothing here uses."""

    def other(record: logging.LogRecord) -> bool:
        return "PyTorch was not found" not in record.getMessage()

    logger = logging.getLogger("transformers")
    logger.addFilter(other)
    try:
        import transformers as module  # here, because it takes seconds
    finally:
        logger.removeFilter(other)
    return module
