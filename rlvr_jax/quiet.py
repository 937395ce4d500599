"""The import of `transformers` without its output."""

import logging
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
