"""The files of a supervised run: what is left out and said of it, and the mixture of their rows."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rlvr_jax import tasks
from rlvr_jax.errors import ConfigError, file_error
from rlvr_jax.learner.supervised import SourceConfig
from rlvr_jax.tasks.conversations import LeftOut, usable
from rlvr_jax.tasks.finite import finite_task
from rlvr_jax.training.setup import Setup

Record = TypeVar("Record")
Row = TypeVar("Row")


@dataclass(frozen=True)
class Rows:
    """The usable rows of the sources of a run.

    Attributes:
      of: name of a source -> its rows.
      facts: metrics of step 0: the rows of each source, and those left out.
    """

    of: Mapping[str, Sequence[Any]]
    facts: Mapping[str, float | int]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sources, in order; a row's source is an index of these."""
        return tuple(self.of)


def read_rows(
    setup: Setup,
    section: str,
    sources: Mapping[str, SourceConfig],
    read: Callable[[str], tuple[list[Record], LeftOut]],
    made: Callable[[int, Sequence[Record]], Sequence[Row | str]],
    noun: str,
) -> Rows:
    """The rows of all sources; those that are left out are counted, and named on stderr.

    Args:
      setup: of the run.
      section: of the config that has these sources.
      sources: by name.
      read: file -> its records, and those left out.
      made: (number of the source, its records) -> a row for each, or the reason why it is left out.
      noun: for the records, in messages.

    Raises:
      ConfigError: a file can't be read, or has no usable record.
    """
    found, facts = {}, {}
    for number, (name, source) in enumerate(sources.items()):
        key = f"config.{section}.sources.{name}.file"
        try:
            records, unread = read(source.file)
        except OSError as error:
            raise ConfigError(f"{key}: {file_error(error)}") from error
        except ValueError as error:
            raise ConfigError(f"{key}: {error}") from error
        rows, unused = usable(
            [(record.place, row) for record, row in zip(records, made(number, records), strict=True)], _row
        )
        left = LeftOut({**unread.reasons, **unused.reasons})
        total = len(rows) + left.count
        if not rows:
            raise ConfigError(f"{key}: {source.file} has no usable {noun} among {total}: {left}")
        if left.count and setup.processes.index == 0:
            print(f"note: {left.count} of {total} {noun} of {source.file} are left out: {left}", file=sys.stderr)
        found[name] = rows
        facts |= {f"data/{name}/rows": len(rows), f"data/{name}/left_out": left.count}
    return Rows(found, facts)


def _row(_: str, row: Any) -> list[Any]:
    if isinstance(row, str):
        raise ValueError(row)
    return [row]


def mixture_of(rows: Mapping[str, Sequence[Any]], sources: Mapping[str, SourceConfig]) -> tasks.Mixture:
    """The mixture of sources by their weights, of examples whose reference is the index of a row."""
    parts = [
        finite_task(name, "", {"train": range(len(rows[name]))}, lambda _: "", lambda index: index)
        for name in rows
        if sources[name].weight > 0
    ]
    return tasks.Mixture(tuple(parts), tuple(sources[part.name].weight for part in parts))


def mixed(rows: Mapping[str, Sequence[Row]], mixture: tasks.Mixture, seed: int, step: int, size: int) -> list[Row]:
    """The rows of an update, the step-th from 0: the next ones of the mixture, each row of a source once an epoch."""
    return [rows[x.task][x.reference] for x in tasks.batch(mixture, "train", seed, step, size)]
