"""Tasks of EleutherAI's `lm-eval` on a trained policy. It comes with `pip install lm_eval`.

    rlvr lm_eval --model=runs/gsm8k --tasks=gsm8k,arc_easy [--limit=100 --shots=5 --chat --output=lm_eval.json]
    rlvr lm_eval --model=HuggingFaceTB/SmolLM2-135M-Instruct --tasks=mine --folder=my_tasks

The policy is that of the newest checkpoint of a run, an export, a GGUF file or a hub id. `lm-eval ls tasks` lists the
tasks; their data sets are downloaded by `datasets`. --folder holds YAML files of further ones.
"""

import json

from absl import flags

from rlvr_jax.errors import ConfigError

from . import command

_MODEL = flags.DEFINE_string("model", None, "Workdir of a run, folder or hub id of a checkpoint, or GGUF file.")
_TASKS = flags.DEFINE_list("tasks", [], "Names of tasks or of groups of tasks.")
_FOLDER = flags.DEFINE_string("folder", None, "Folder with YAML files of further tasks.")
_LIMIT = flags.DEFINE_integer("limit", None, "Problems of each task; all without it.", lower_bound=1)
_SHOTS = flags.DEFINE_integer(
    "shots", None, "Solved examples in each prompt; the task's number without it.", lower_bound=0
)
_CHAT = flags.DEFINE_bool("chat", False, "Render prompts by the policy's chat template.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Rows at a time.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file of the results.")


def main() -> None:
    from rlvr_jax import load
    from rlvr_jax.evaluation import lm_eval

    if not _TASKS.value:
        raise ConfigError("--tasks is empty: name tasks of lm-eval, as in --tasks=gsm8k,arc_easy")
    output = command.file_to_write("output", _OUTPUT.value)
    lm_eval.installed()
    options = {"limit": _LIMIT.value, "num_fewshot": _SHOTS.value, "apply_chat_template": _CHAT.value}
    found = lm_eval.run(load(_MODEL.value), _TASKS.value, _FOLDER.value, _BATCH_SIZE.value, **options)
    rows = [(task, name, value) for task, of in found["results"].items() for name, value in of.items()]
    print(f"{_MODEL.value}\n{'task':28}{'metric':32}{'mean':>8}   standard error")
    for task, name, value in rows:
        metric, _, kept = name.partition(",")
        if isinstance(value, int | float) and "_stderr" not in metric and kept:
            error = found["results"][task].get(f"{metric}_stderr,{kept}", "")
            error = f"{error:.4f}" if isinstance(error, float) else "unknown"
            print(f"{task:28}{f'{metric} ({kept})':32}{value:8.4f}   {error}")
    if output:
        kept = {key: found[key] for key in ("results", "versions", "n-shot", "n-samples", "configs") if key in found}
        command.write_files({output: json.dumps(kept, indent=1, default=str).encode()})


if __name__ == "__main__":
    command.run(main, required=("model",))
