"""The source of a checkpoint: a folder, a repository on the Hugging Face hub, or a GGUF file."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.safetensors import INDEX

GENERATION_CONFIG = "generation_config.json"
_COMPANIONS = (
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    GENERATION_CONFIG,
)
_REPOSITORY = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(@[\w./-]+)?")  # name or owner/name, optionally with a revision
_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_HUB_TIMEOUT = 3.0  # seconds until an unresponsive hub counts as unreachable


def find_checkpoint(source: str | Path, weights: bool = True) -> Path:
    """The folder of a checkpoint: `source` itself, or the local copy of a repository or GGUF file.

    A GGUF file is converted once. A repository on the hub is downloaded if needed; if the hub is unreachable, an
    earlier download is used.

    Args:
      source: a folder, a GGUF file, or a repository id, optionally with "@" and a revision.
      weights: fetch the weights, too; otherwise only the small files.

    Raises:
      CheckpointError: it was not found.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_file() and path.suffix == ".gguf":
        from rlvr_jax.hf.gguf import converted  # here, because it needs the families, which need transformers

        return converted(path)
    if path.exists():
        raise CheckpointError(
            f"{source} is a file; a folder of a Hugging Face checkpoint, a hub id or a .gguf is needed"
        )
    if path.suffix == ".gguf" or not _REPOSITORY.fullmatch(str(source)):
        raise CheckpointError(f"there is no {'file' if path.suffix == '.gguf' else 'folder'} {source}")
    patterns = ["config.json", *_COMPANIONS, *(["model*.safetensors", INDEX] if weights else [])]
    return _from_hub(str(source), patterns)


def _from_hub(source: str, patterns: list[str]) -> Path:
    from huggingface_hub import HfApi, snapshot_download  # here, because most runs don't need it
    from huggingface_hub.utils import HfHubHTTPError

    repository, _, revision = source.partition("@")
    found, reason = revision or None, None
    try:
        # One request with a time limit: the download itself would retry for a minute without an answer.
        found = HfApi().repo_info(repository, revision=found, timeout=_HUB_TIMEOUT).sha
    except HfHubHTTPError as error:  # an answer: no such repository or revision, or no permission
        reason = error
        if error.response.status_code < 500:
            raise CheckpointError(_not_found(source, error)) from error
    except Exception as error:  # offline, no such host, no connection: many kinds
        reason = error
    get = partial(snapshot_download, repository, revision=found, allow_patterns=patterns)
    try:
        return Path(get(local_files_only=reason is not None))
    except Exception as error:
        raise CheckpointError(_not_found(source, reason or error)) from error


def _not_found(source: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0]
    return (
        f"there is no folder {source}, and it was not found on the Hugging Face hub: {type(error).__name__}: {reason}"
    )


def companion_files(folder: Path) -> list[Path]:
    """The files of a checkpoint's tokenizer and generation config, in a fixed order."""
    return sorted({file for pattern in _COMPANIONS for file in folder.glob(pattern) if file.is_file()})


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a checkpoint's config.json.

    Raises:
      CheckpointError: there is none, it is no JSON object, or the folder holds adapters, which would be ignored.
    """
    adapters = [name for name in _ADAPTERS if (folder / name).is_file()]
    if adapters:
        raise CheckpointError(
            f"{folder} holds adapters ({adapters[0]}), which are not read; merge them into the weights of their base "
            "model and give that folder"
        )
    file = folder / "config.json"
    if not file.is_file():
        near = sorted(path.name for path in folder.glob("*.gguf"))
        hint = f"; give the path of its file {near[0]}" if near else ""
        raise CheckpointError(f"{folder} has no config.json, so it is not a Hugging Face checkpoint{hint}")
    return _read_object(file)


def listed_stop_tokens(folder: Path) -> tuple[int, ...]:
    """The stop tokens of a checkpoint: of generation_config.json, or of config.json if that names none.

    `transformers` stops at the same ones.

    Raises:
      CheckpointError: a file is damaged.
    """
    config = folder / "config.json"
    for name, raw in ((GENERATION_CONFIG, read_generation_config(folder)), ("config.json", _read_object(config))):
        ids = raw.get("eos_token_id")
        ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
        if not all(type(token) is int and token >= 0 for token in ids):
            raise CheckpointError(f"{folder / name}: eos_token_id must be token ids, not {ids}")
        if ids:
            return tuple(ids)
    return ()


def read_generation_config(folder: Path) -> dict[str, Any]:
    """The content of a checkpoint's generation_config.json; empty if there is none.

    Raises:
      CheckpointError: it is damaged.
    """
    return _read_object(folder / GENERATION_CONFIG)


def _read_object(file: Path) -> dict[str, Any]:
    """The content of a JSON file; empty if there is no such file."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{file} is not a JSON object")
    return raw
