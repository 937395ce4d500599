"""RLVR in JAX: reinforcement learning with verifiable rewards. docs/architecture.md describes the packages."""

from pathlib import Path
from typing import Any


def load(path: str | Path, dtype: str | None = None) -> Any:
    """A policy for notebooks: a `rlvr_jax.notebook.Model` with `generate` and `logprobs`.

        model = rlvr_jax.load("HuggingFaceTB/SmolLM2-135M-Instruct")
        model.generate([{"role": "user", "content": "What is 3 + 4?"}], temperature=0)[0].text

    Args:
      path: the folder or hub id of a Hugging Face checkpoint, a GGUF file, or the workdir of a run, whose newest policy
        is taken.
      dtype: of parameters and computation, "float32" or "bfloat16"; None keeps the checkpoint's.

    Raises:
      CheckpointError, ConfigError: it was not found, or is of an unsupported kind.
    """
    from rlvr_jax import notebook  # here: `import rlvr_jax` takes no time

    return notebook.load(path, dtype)
