"""Writes the policy of a run as a Hugging Face checkpoint, for transformers and inference engines.

    rlvr export --workdir=runs/gsm8k --out=exports/gsm8k [--dtype=bfloat16] [--adapters] [--step=100]

The folder gets config.json, safetensors files, the tokenizer and the generation config. A run with LoRA adapters is
merged; --adapters writes the adapters alone, in the format of peft.
"""

from pathlib import Path

from absl import flags

from . import command

_OUT = flags.DEFINE_string("out", None, "The folder to make.")
_DTYPE = flags.DEFINE_enum(
    "dtype", "", ["", "float32", "bfloat16", "float16"], "Of the weights; empty for that which the run started from."
)
_ADAPTERS = flags.DEFINE_bool("adapters", False, "Write the LoRA adapters alone.")
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; the newest without it.", lower_bound=0)


def main() -> None:
    from rlvr_jax.training.export import export

    out = Path(_OUT.value).expanduser()
    step = export(command.workdir(), out, _DTYPE.value, _ADAPTERS.value, _STEP.value)
    print(f"{'adapters' if _ADAPTERS.value else 'policy'} of step {step} written to {out}")


if __name__ == "__main__":
    command.define(config=False, workdir="Folder of the run.")
    command.run(main, required=("workdir", "out"))
