"""Constraints on a response's form: the instructions of IFEval, and those of IFBench that are clear without its code.

The reference is a line of IFEval's files: `{"prompt", "instruction_id_list", "kwargs"}`. `ifeval` has its 25
instructions and their peculiarities; `ifbench` those of IFBench, and which of them are left out.

A response follows an instruction strictly if it passes its check, and loosely if any of eight variants does: the
response with or without its first line, with or without its last line, with or without its asterisks. So `Sure, here
you are:` before the answer, or emphasis in it, is allowed. A blank text follows no instruction, nor does a response
longer than `MAX_LENGTH`, which bounds the time of a judgement.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from rlvr_jax.verifiers.constraints import ifbench, ifeval
from rlvr_jax.verifiers.constraints.arguments import bind
from rlvr_jax.verifiers.verdict import Verdict

MAX_LENGTH = 100_000  # characters of a response, some 20,000 words

CHECKS: Mapping[str, Callable[..., bool]] = {**ifeval.CHECKS, **ifbench.CHECKS}

_Follows = Callable[[str], bool]


def _instruction(index: int, name: Any, kwargs: Any) -> _Follows:
    """The check of one instruction with its arguments."""
    if not isinstance(name, str) or name not in CHECKS:
        why = f": {ifbench.LEFT_OUT[name]}" if isinstance(name, str) and name in ifbench.LEFT_OUT else ""
        raise ValueError(f"instruction {index} is {name!r}, which is not among the known ones{why}")
    check = CHECKS[name]
    try:
        arguments = bind(check, kwargs)
    except ValueError as error:
        raise ValueError(f"instruction {index}, {name}: {error}") from None
    return lambda text: bool(text.strip()) and check(text, **arguments)


def _instructions(reference: Any) -> tuple[list[str], list[_Follows]]:
    """The names and the checks of a reference's instructions."""
    names, kwargs = (
        (reference.get("instruction_id_list"), reference.get("kwargs")) if isinstance(reference, Mapping) else (0, 0)
    )
    if not (
        isinstance(names, Sequence)
        and not isinstance(names, str)
        and isinstance(kwargs, Sequence)
        and len(names) == len(kwargs) > 0
    ):
        raise ValueError(
            'the reference of a constraints example is {"prompt": str, "instruction_id_list": [str, …], "kwargs": '
            f"[{{…}}, …]}} with as many kwargs as instructions, at least one, not {repr(reference)[:200]}"
        )
    return list(names), [_instruction(i, name, kwargs[i]) for i, name in enumerate(names)]


def variants(response: str) -> list[str]:
    """The eight variants of a response for loose judgement, starting with itself."""
    lines = response.split("\n")
    shortened = [response] + ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return list(dict.fromkeys(shortened + [text.replace("*", "") for text in shortened]))


def verify(
    completion: str,
    reference: Mapping[str, Any],
    *,
    score: Literal["all", "share"] = "all",
    mode: Literal["strict", "loose"] = "strict",
) -> Verdict:
    """Judges whether the completion follows the instructions of the reference.

    Args:
      completion: the response.
      reference: `{"prompt", "instruction_id_list", "kwargs"}`; keys of kwargs that are null don't count.
      score: "all" scores 1 if every instruction is followed (IFEval's accuracy at prompt level), "share" gives the
        share of instructions that are.
      mode: the judgement that the score is based on.

    Parts: `strict` and `loose` (every instruction is followed), and the same of each instruction under its index:
    `strict/0`, `loose/0`, …

    Raises:
      ValueError: an option is not one of those above, the reference has another shape, names an instruction that is
        not in `CHECKS`, or its kwargs are not those of the instruction.
    """
    if score not in ("all", "share") or mode not in ("strict", "loose"):
        raise ValueError(f"score must be 'all' or 'share' and mode 'strict' or 'loose', not {score!r} and {mode!r}")
    names, follows = _instructions(reference)
    too_long = len(completion) > MAX_LENGTH
    texts = [] if too_long else variants(completion)
    strict = [any(map(check, texts[:1])) for check in follows]
    loose = [followed or any(map(check, texts[1:])) for followed, check in zip(strict, follows, strict=True)]
    parts = {"strict": float(all(strict)), "loose": float(all(loose))}
    for i in range(len(names)):
        parts |= {f"strict/{i}": float(strict[i]), f"loose/{i}": float(loose[i])}
    followed = strict if mode == "strict" else loose
    missed = [f"{i} ({name})" for i, name in enumerate(names) if not followed[i]]
    value = parts[mode] if score == "all" else sum(followed) / len(followed)
    if too_long:
        return Verdict(0.0, parts, reason=f"the response has {len(completion)} characters, more than {MAX_LENGTH}")
    return Verdict(value, parts, reason=f"not followed: {', '.join(missed)}" if missed else "all followed")
