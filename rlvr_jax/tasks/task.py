"""Tasks: records of pure functions that turn an index into a problem.

Tasks name their verifier, whose function is in `rlvr_jax.verifiers`, because this package imports only `text`.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlvr_jax.text.messages import Messages

Split = Literal["train", "heldout"]


@dataclass(frozen=True)
class Example:
    """One problem.

    Attributes:
      id: unique and stable, e.g. `modsum/train/17`.
      prompt: the text that the policy continues; or chat messages, before `prompts.rendered`.
      reference: the gold answer as the verifier gets it, plain JSON data; never shown to the policy.
      task: name of its task.
      gold: the gold answer for human readers, if the reference does not show it; empty otherwise.
      problem: the prompt before rendering; empty until then.
      level: a name of its difficulty or kind, by which a curriculum keeps pass rates; empty for none.
    """

    id: str
    prompt: str | Messages
    reference: Any
    task: str
    gold: str = ""
    problem: str | Messages = ""
    level: str = ""


@dataclass(frozen=True)
class Task:
    """A source of problems, and the name of their verifier.

    Attributes:
      name: unique, without a slash; also the prefix of example ids.
      verifier: name of the verifier: a kind of `rlvr_jax.verifiers`, or `module:function`.
      example: (split, index) -> Example, a pure function. The two splits never share a problem.
      num_examples: split -> number of different examples, or None if unbounded: any index >= 0 is valid.
      demonstration: (example, index) -> a completion to imitate in a supervised warm start; not always correct. Text,
        or for episodes of several turns messages: the policy's ("assistant") and observations between them. None for
        tasks without demonstrations.
      alphabet: the characters of prompts and demonstrations, for `character_tokenizer`; None if any character may
        occur, which needs the byte tokenizer or that of a pretrained model.
      verifier_options: keyword arguments of the verifier, the same for every example.
      levels: the levels of the examples of an unbounded task; those of a finite one are found in its examples.
      line: (split, index) -> the file and line of an example, for messages; empty without a file.
    """

    name: str
    verifier: str
    example: Callable[[Split, int], Example]
    num_examples: Callable[[Split], int | None]
    demonstration: Callable[[Example, int], str | Messages] | None = None
    alphabet: str | None = None
    verifier_options: Mapping[str, Any] = field(default_factory=dict)
    levels: tuple[str, ...] = ()
    line: Callable[[Split, int], str] = lambda *_: ""


def draw(*path: str | int) -> int:
    """512 random bits as an integer, a pure function of `path`: the host's counterpart of `jax.random.fold_in`.

    A hash rather than a generator, because its output is the same for every version of Python and NumPy.
    Take small integers from it with `divmod`: the bias is below 2**-400.
    """
    text = "/".join(map(str, path)).encode(errors="surrogatepass")  # JSON files may hold lone surrogates
    return int.from_bytes(hashlib.blake2b(text, digest_size=64).digest())


def uniform(*path: str | int) -> float:
    """A number drawn uniformly from [0, 1), a pure function of `path`: the first 53 bits of `draw`."""
    return (draw(*path) >> 459) / 2**53


def place_of(example: Example) -> tuple[Split, int]:
    """The (split, index) of an example, parsed from its id `name/split/index`."""
    _, split, index = example.id.split("/")
    return split, int(index)


def split_of(problem: str, heldout_share: float = 0.1) -> Split:
    """The split that a problem belongs to, by the hash of its canonical text.

    Procedural tasks draw problems until one is in the wanted split, so splits are disjoint by construction.
    """
    return "heldout" if draw("split", problem) % 10_000 < heldout_share * 10_000 else "train"
