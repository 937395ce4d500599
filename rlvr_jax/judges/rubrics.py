"""Rubrics: statements with weights, which a response is graded by; a model spec is one for all responses."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rlvr_jax.errors import ConfigError
from rlvr_jax.judges.prompts import NoScoreError, checked_items

Items = list[tuple[str, float]]  # statements of a rubric, with weights
_LINE = re.compile(r"(?:[-*] +)?(?:\[(?P<weight>[^\]]*)\] *)?(?P<statement>.*)")


def rubric_of(data: Any) -> Items:
    """The rubric in plain data: a list of {"criterion", "weight"} or of texts, which weigh 1; or {"rubric": the list}.

    Raises:
      NoScoreError: it is none.
    """
    listed = data.get("rubric") if isinstance(data, Mapping) else data
    if not isinstance(listed, list | tuple) or not listed:
        raise NoScoreError("the data hold no rubric: a list of items, or an object with such a list under rubric")
    items = []
    for entry in listed:
        item = {"criterion": entry} if isinstance(entry, str) else entry
        text = item.get("criterion") if isinstance(item, Mapping) else None
        weight = item.get("weight", 1.0) if isinstance(item, Mapping) else None
        wrong = isinstance(weight, bool) or not isinstance(weight, int | float)
        if not isinstance(text, str) or not text.strip() or wrong:
            raise NoScoreError(f"an item of the rubric is no {{'criterion': text, 'weight': number}}: {entry!r:.80}")
        items.append((text, weight))
    return checked_items(items)


def rubric_of_lines(text: str) -> Items:
    """The rubric of a text with a statement on each line, perhaps with a weight: `- [2] It names its sources.`

    Empty lines and those that begin with # count for nothing.

    Raises:
      NoScoreError: it is none.
    """
    items = []
    for line in text.splitlines():
        match = _LINE.fullmatch(line.strip())
        if line.lstrip().startswith("#") or not line.strip() or match is None:
            continue
        try:
            items.append({"criterion": match["statement"], "weight": float(match["weight"] or 1)})
        except ValueError:
            raise NoScoreError(f"the weight in brackets is no number: {line.strip()!r:.80}") from None
    return rubric_of(items)


def read_rubric(file: str, name: str) -> Items:
    """The rubric of a file: JSON (.json), YAML (.yaml, .yml), or else lines.

    Raises:
      ConfigError: there is none; with the key of the judge `name`.
    """
    path = Path(file).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            return rubric_of(json.loads(text))
        return rubric_of(yaml.safe_load(text)) if path.suffix in (".yaml", ".yml") else rubric_of_lines(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(
            f"config.judges.{name}.rubric = {file!r} is neither '', 'reference' nor 'generated', nor a file of "
            f"items: {error}"
        ) from error
