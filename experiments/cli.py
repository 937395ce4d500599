"""The command `rlvr`: runs and lists the commands of this folder. Imports nothing heavy."""

import difflib
import os
import runpy
import sys
from importlib.metadata import version

from .builtin import summaries

COMMANDS = {
    "sft": "supervised learning of chats, or a warm start on a task's demonstrations",
    "prefer": "learning from preferences: DPO and its relatives, or a reward model",
    "sample": "a policy's own right or best samples as a set to learn from",
    "train": "reinforcement learning with verifiable rewards",
    "sweep": "several configs and seeds, and a report that tells their differences from noise",
    "reproduce": "make a stored curve again, and say whether it lies in its band",
    "evaluate": "greedy accuracy and pass@k of a run or a checkpoint on held-out problems",
    "lm_eval": "tasks of EleutherAI's lm-eval on a policy",
    "judge": "scores and biases of a language model as a judge",
    "pairs": "preference pairs: answers of several policies, scored and binarised",
    "synthesize": "new problems with verified answers, written by a model from examples",
    "arena": "ratings of evaluated policies by pairwise comparison",
    "route": "what a router that picks a policy for each prompt would reach",
    "export": "a run's policy as a Hugging Face checkpoint",
    "report": "write the curves and the HTML report of a run or sweep, also during the run",
    "keys": "the keys of a config with their values and meaning",
    "fetch": "download a small pretrained model",
    "verify": "judge completions of a file with a verifier",
    "decontaminate": "find training prompts that leak evaluation prompts",
    "compile": "memory, work and estimated time of a run on accelerators you don't have",
    "benchmark": "speed of sampling and training on this machine",
}
_MODULES = {"benchmark": "benchmarks.speed"}  # of commands in subfolders
_OTHER_WORDS = {"compare": "'report RUN RUN' or 'evaluate --against=RUN'", "plot": "'report'", "config": "'keys'"}
_EXAMPLE = """\
quick tour, a minute on a laptop:
  rlvr sft   --config=quickstart --workdir=runs/quickstart/sft
  rlvr train --config=quickstart --workdir=runs/quickstart --config.init_from=runs/quickstart/sft
  rlvr evaluate --workdir=runs/quickstart
and then open runs/quickstart/report.html in a browser"""


def main() -> None:
    """Runs `rlvr COMMAND ...` as `python -m experiments.COMMAND ...` would."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        show(usage())
    elif name == "--version":
        print(f"rlvr_jax {version('rlvr_jax')}")
    elif name in COMMANDS:
        sys.argv = [f"rlvr {name}", *rest]
        runpy.run_module(f"{__package__}.{_MODULES.get(name, name)}", run_name="__main__")
    else:
        close = _OTHER_WORDS.get(name) or ", ".join(map(repr, difflib.get_close_matches(name, COMMANDS, n=1)))
        hint = f"did you mean {close}?" if close else f"there are {', '.join(COMMANDS)}"
        print(f"error: rlvr has no command {name!r}; {hint} (see rlvr --help)", file=sys.stderr)
        sys.exit(2)


def show(text: str) -> None:
    """Prints a page; its reader may have seen enough before its end, as `head` has."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # avoids an error at the interpreter's exit


def usage() -> str:
    """The page of `rlvr --help`."""
    return "\n".join(
        [
            "rlvr: reinforcement learning of language models with verifiable rewards, on JAX\n",
            "usage: rlvr COMMAND [flags]",
            "       rlvr COMMAND --help\n",
            "commands:",
            *table(COMMANDS),
            f"\n{_EXAMPLE}\n",
            "built-in configs (--config=NAME, or your own --config=FILE.py):",
            *table(summaries()),
        ]
    )


def table(rows: dict[str, str]) -> list[str]:
    """Lines of two columns."""
    width = max(map(len, rows))
    return [f"  {name:{width}}  {text}" for name, text in rows.items()]


if __name__ == "__main__":
    main()
