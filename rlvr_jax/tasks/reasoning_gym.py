"""reasoning-gym: more than a hundred families of procedural problems (Stojanovski et al. 2025, arXiv:2505.24760).

The package is an extra, `pip install 'rlvr_jax[reasoning-gym]'`. This module makes every problem a function of (data
set, settings, index): Python's and NumPy's global random states are seeded from the index, and data sets whose problems
depend on the order of a set of strings are refused unless Python's hash seed is fixed.

    from rlvr_jax import tasks
    task = tasks.reasoning_gym("chain_sum", min_terms=2, max_terms=4)

`problem` regenerates an entry from a reference, in any process; the verifier of the same name uses it, too.
"""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import importlib
import io
import json
import random
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rlvr_jax.tasks.task import Example, Split, Task, draw, place_of, split_of
from rlvr_jax.text import formats
from rlvr_jax.text.formats import AnswerFormat

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

# Its scorers were reviewed and its data sets tested in this version; another might execute model output.
VERSION = "0.1.25"
HELDOUT_SHARE = 0.25
# Data sets that first make a table of this many entries; word_ladder allows at most 20,000.
_SIZES = {"acre": 1_000, "gsm_symbolic": 1_000_000, "list_functions": 1_000_000, "word_ladder": 20_000}
_SIZE = 2**31  # of the others, whose entries are functions of their index; NumPy takes seeds below 2**32
_MOST_DRAWS = 1_000
# Their problems depend on the iteration order of sets of strings.
_HASHING = frozenset({"isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder"})
_REFUSED = {"composite": "mix several tasks instead"}
_NEEDS_PYCOSAT = "zebra_puzzles"
_OWN_SETTINGS = ("seed", "size")


def reasoning_gym(
    dataset: str,
    answer_format: AnswerFormat = "answer",
    heldout_share: float = HELDOUT_SHARE,
    instruction: str | None = None,
    **settings: Any,
) -> Task:
    """A data set of reasoning-gym as an unbounded task; its splits share no problem text.

    The prompt is the data set's question and the instruction of the answer format. The demonstration is the data set's
    answer, without reasoning; a few data sets have none.

    Args:
      dataset: name of the data set, e.g. `chain_sum`.
      answer_format: format of the answer, see `rlvr_jax.text.formats`.
      heldout_share: share of the problems that are held out. An example is drawn until it falls into its split, so a
        small share makes held-out examples slow to find.
      instruction: end of the prompt, after the question, instead of that of the format.
      **settings: differences from the data set's default configuration, as plain JSON data.

    Raises:
      ValueError: the package is missing or not of version `VERSION`; the data set is unknown or unsupported; a setting
        is unknown or refused by the data set.
    """
    formats.instruction(answer_format)
    if not 0 < heldout_share < 1:
        raise ValueError(f"heldout_share must be between 0 and 1, not {heldout_share}")
    for name in _OWN_SETTINGS:
        if name in settings:
            raise ValueError(f"reasoning_gym: {name} is not for the caller to set; examples are chosen by their index")
    size = _SIZES.get(dataset, _SIZE)
    settings = {**settings, "seed": 0, "size": size}
    text = _canonical(settings)
    data = _dataset(dataset, text)
    name = f"reasoning_gym.{dataset}"
    has_answers = isinstance(_entry(data, 0)["answer"], str)
    if instruction is None:
        instruction = formats.instruction(answer_format, "the final answer, and nothing else,")

    @functools.lru_cache(maxsize=4096)  # held-out examples are requested repeatedly
    def example(split: Split, index: int) -> Example:
        if index < 0:
            raise IndexError(f"{name}: index must be at least 0, not {index}")
        for attempt in range(_MOST_DRAWS):
            place = draw(name, split, index, attempt) % size
            entry = _entry(data, place)
            question = entry["question"]
            if split_of(f"{name}/{question}", heldout_share) == split:
                reference = {
                    "dataset": dataset,
                    "settings": json.loads(text),
                    "index": place,
                    "checksum": checksum(question),
                }
                gold = entry["answer"] if isinstance(entry["answer"], str) else ""
                return Example(f"{name}/{split}/{index}", formats.prompt(question, instruction), reference, name, gold)
        raise ValueError(
            f"{name}: {_MOST_DRAWS} problems were drawn and none belongs to the split {split!r}; with these settings "
            "there are too few different ones"
        )

    def demonstration(given: Example, index: int) -> str:
        del index  # each problem has one answer
        return formats.written(answer_format, problem(example(*place_of(given)).reference)["answer"].strip())

    options = {"answer_format": answer_format}
    return Task(
        name, "reasoning_gym", example, lambda _split: None, demonstration if has_answers else None, None, options
    )


def problem(reference: Mapping[str, Any]) -> dict[str, Any]:
    """The entry `reasoning_gym.create_dataset(dataset, **settings)[index]`, with keys question, answer and metadata.

    Args:
      reference: `{"dataset", "settings", "index", "checksum"?}`; the checksum is that of the question.

    Raises:
      ValueError: the reference has another form, or its problem differs here from the one it was made for; and as
        `reasoning_gym`.
    """
    form = {"dataset": str, "settings": Mapping, "index": int}
    if not (
        isinstance(reference, Mapping)
        and all(isinstance(reference.get(name), kind) for name, kind in form.items())
        and set(reference) - set(form) <= {"checksum"}
        and reference["index"] >= 0
    ):
        raise ValueError(
            'the reference of a reasoning_gym example is {"dataset": str, "settings": {…}, "index": int >= 0} with an '
            f"optional checksum, not {str(reference)[:200]}"
        )
    entry = copy.deepcopy(_cached_entry(reference["dataset"], _canonical(reference["settings"]), reference["index"]))
    expected = reference.get("checksum")
    if expected is not None and checksum(entry["question"]) != expected:
        raise ValueError(
            f"entry {reference['index']} of {reference['dataset']} is another problem here than where it was made"
        )
    return entry


def scorer(reference: Mapping[str, Any]) -> "ProceduralDataset":
    """The data set of a reference, whose `score_answer(answer, entry)` scores answers to `problem(reference)`."""
    return _dataset(reference["dataset"], _canonical(reference["settings"]))


def checksum(question: str) -> str:
    """The first 16 hex digits of the SHA-256 of a question."""
    return hashlib.sha256(question.encode(errors="surrogatepass")).hexdigest()[:16]


@contextlib.contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seeds the global random states inside the context and restores them afterwards; output is dropped."""
    import numpy as np  # not at the top: workers of other verifiers import this module, too

    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def _canonical(settings: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(settings), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"reasoning_gym: settings must be plain JSON data: {error}") from error


def import_package() -> None:
    """Imports reasoning-gym, which takes seconds; raises a ValueError that names the extra if it fails."""
    try:
        version = metadata.version("reasoning-gym")
        _pycosat_or_nothing()
        importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise ValueError(f"reasoning-gym can't be imported ({error}): pip install 'rlvr_jax[reasoning-gym]'") from error
    if version != VERSION:
        raise ValueError(
            f"reasoning-gym {version} is installed; its scorers were examined in {VERSION}: "
            f"pip install reasoning-gym=={VERSION}"
        )


def _pycosat_or_nothing() -> None:
    """An empty module in place of a missing pycosat, which needs a C compiler and serves one data set of a hundred."""
    try:
        importlib.import_module("pycosat")
    except ImportError:
        sys.modules["pycosat"] = ModuleType("pycosat")


@functools.lru_cache(maxsize=64)
def _dataset(name: str, settings: str) -> "ProceduralDataset":
    """The data set; created once per process, since some take seconds."""
    import_package()
    from reasoning_gym.factory import DATASETS, create_dataset

    if name in _REFUSED or name not in DATASETS:
        why = f"can't be used: {_REFUSED[name]}" if name in _REFUSED else "does not exist"
        raise ValueError(f"reasoning-gym's data set {name!r} {why}; there are {', '.join(sorted(DATASETS))}")
    if name == _NEEDS_PYCOSAT and not hasattr(sys.modules["pycosat"], "itersolve"):
        raise ValueError(
            f"reasoning-gym's {name} needs the package pycosat, which needs a C compiler: pip install pycosat"
        )
    if name in _HASHING and sys.flags.hash_randomization:
        raise ValueError(
            f"the problems of reasoning-gym's {name} depend on Python's hash seed: start Python with PYTHONHASHSEED=0"
        )
    values = json.loads(settings)
    known = [field.name for field in dataclasses.fields(DATASETS[name][1])]
    for setting in values:
        if setting not in known:
            own = [setting for setting in known if setting not in _OWN_SETTINGS]
            raise ValueError(f"reasoning-gym's {name} has no setting {setting!r}; it has {', '.join(own)}")
    try:
        with isolated(0):
            return create_dataset(name, **values)
    except Exception as error:  # their configurations use assertions
        raise ValueError(f"reasoning-gym's {name} refuses these settings: {type(error).__name__}: {error}") from error


@functools.lru_cache(maxsize=256)  # the samples of a group have one problem
def _cached_entry(name: str, settings: str, index: int) -> dict[str, Any]:
    return _entry(_dataset(name, settings), index)


def _entry(data: "ProceduralDataset", index: int) -> dict[str, Any]:
    with isolated(index):
        return data[index]
