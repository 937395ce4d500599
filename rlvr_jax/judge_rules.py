"""Validity rules of judges."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from rlvr_jax.config import Config
from rlvr_jax.supervised_rules import LABEL
from rlvr_jax.verifiers.judge import JudgeConfig

_OF_THE_REQUEST = ("messages", "model", "stream", "n")
_LONGEST = 1e6  # seconds that a socket can wait for


def rules(c: Config) -> Iterator[tuple[bool, str]]:
    """(Is it wrong, message) of each rule."""
    for name, j in c.judges.items():
        key = f"config.judges.{name}"
        yield not re.fullmatch(LABEL, name), f"{key}: the name of a judge is made of letters, digits, _ . and -"
        yield name in c.reward_models, f"{key}: config.reward_models has the same name; choose another"
        yield (
            not j.model,
            f"{key}.model is empty: name one of the endpoint, the folder of a checkpoint, or 'policy'",
        )
        yield (
            bool(j.endpoint) and not j.endpoint.startswith(("http://", "https://")),
            f"{key}.endpoint must begin with http:// or https://, not {j.endpoint!r}",
        )
        yield (
            j.model == "policy" and not (j.endpoint or c.init_from or c.pretrained),
            f"{key}.model = 'policy' is the policy that the run starts from, and both config.init_from and "
            "config.pretrained are empty: a random one judges nothing",
        )
        yield (
            not j.endpoint and j.temperature != 0,
            f"{key}.temperature = {j.temperature}: a judge in this process answers greedily; set 0, or an endpoint",
        )
        for option in ("options", "per_minute"):
            yield (
                bool(getattr(j, option)) and not j.endpoint,
                f"{key}.{option} has no effect without {key}.endpoint",
            )
        yield not _is_json(dict(j.options)), f"{key}.options must be plain JSON data, not {dict(j.options)!r:.100}"
        taken = [option for option in _OF_THE_REQUEST if option in j.options]
        yield (
            bool(taken),
            f"{key}.options sets {', '.join(taken)}, which are the judge's own part of a request; leave them out"
            + (f", and name the model by {key}.model" if "model" in taken else ""),
        )
        for option in ("template", "lowest", "highest"):
            yield (
                bool(j.rubric) and getattr(j, option) != getattr(JudgeConfig, option),
                f"{key}.{option} has no effect with {key}.rubric = {j.rubric!r}, whose items are met or not; leave it "
                "out, or the rubric",
            )
        yield "{response}" not in j.template, f"{key}.template has no place {{response}}: there is nothing to judge"
        yield not j.lowest < j.highest, f"{key}.lowest = {j.lowest} must be below {key}.highest = {j.highest}"
        for option, least in (("in_flight", 1), ("max_tokens", 1), ("per_minute", 0), ("retries", 0)):
            yield getattr(j, option) < least, f"{key}.{option} must be {least} or more, not {getattr(j, option)}"
        yield (
            not 0 < j.timeout <= _LONGEST,
            f"{key}.timeout must be a number of seconds above 0, at most {_LONGEST:g}, not {j.timeout}",
        )
        yield not 0 <= j.temperature < math.inf, f"{key}.temperature must be 0 or more, not {j.temperature}"


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
