"""Tasks: records of pure functions that turn an index into a problem.

`tasks/` is the first room of the library: it imports no other but `text/`. A task therefore names its verifier; the
functions behind the names live in `rlvr_jax.verifiers`.
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
      prompt: the text that the policy continues; or chat messages, until `prompts.rendered` makes it of them.
      reference: what the verifier judges a completion against; plain JSON data. The policy never sees it.
      task: name of the task that made it.
      gold: the right answer for people to read, where the reference does not show it; empty otherwise.
      problem: the prompt as the task made it, before it was rendered; empty until then.
    """

    id: str
    prompt: str | Messages
    reference: Any
    task: str
    gold: str = ""
    problem: str | Messages = ""


@dataclass(frozen=True)
class Task:
    """A source of problems, and the name of the function that judges answers to them.

    Attributes:
      name: unique name without a slash, also the prefix of the ids of its examples.
      verifier: name of the verifier: a kind of `rlvr_jax.verifiers`, or `module:function`.
      example: (split, index) -> Example, a pure function. The two splits never share a problem.
      num_examples: split -> number of different examples, or None for a stream without end, of which any
        index >= 0 is valid.
      demonstration: (example, index) -> a completion to imitate in a supervised warm start; not always a right one.
        None for tasks without demonstrations.
      alphabet: the characters that prompts and demonstrations are made of, for `character_tokenizer`; None for tasks
        whose text may hold any character, which need the byte tokenizer or that of a pretrained model.
      verifier_options: keyword arguments of the verifier, the same for every example.
    """

    name: str
    verifier: str
    example: Callable[[Split, int], Example]
    num_examples: Callable[[Split], int | None]
    demonstration: Callable[[Example, int], str] | None = None
    alphabet: str | None = None
    verifier_options: Mapping[str, Any] = field(default_factory=dict)


def draw(*path: str | int) -> int:
    """512 random bits as an integer, a pure function of `path`: the host's counterpart of `jax.random.fold_in`.

    A hash instead of a generator, because its output is the same under every version of Python and NumPy.
    Take small integers from it with `divmod`: the bias is below 2**-400.
    """
    return int.from_bytes(hashlib.blake2b("/".join(map(str, path)).encode(), digest_size=64).digest())


def uniform(*path: str | int) -> float:
    """A number drawn uniformly from [0, 1), a pure function of `path`: the first 53 bits of `draw`."""
    return (draw(*path) >> 459) / 2**53


def place_of(example: Example) -> tuple[Split, int]:
    """The (split, index) that an example was made from, read from its id `name/split/index`."""
    _, split, index = example.id.split("/")
    return split, int(index)


def split_of(problem: str, heldout_share: float = 0.1) -> Split:
    """The split that a problem belongs to, by the hash of its canonical text.

    Procedural tasks draw problems until one falls into the wanted split, which makes the splits disjoint by
    construction.
    """
    return "heldout" if draw("split", problem) % 10_000 < heldout_share * 10_000 else "train"
