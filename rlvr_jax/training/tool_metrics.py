"""Metrics of the tools that the policy calls, and of its mistakes in calls."""

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from rlvr_jax.reporting.doctor import HARDLY
from rlvr_jax.rollout.episode import Episode, Group, flattened
from rlvr_jax.rollout.playing import Source
from rlvr_jax.training.record import printable

_log = logging.getLogger(__name__)


def tools_of(sources: Mapping[str, Source]) -> tuple[str, ...]:
    """The names of the tools of all tasks."""
    envs = [source.env for source in sources.values()]
    return tuple(sorted({x["function"]["name"] for env in envs if env.tools for x in env.tools.schemas}))


def describe_tools(groups: Sequence[Group], tools: Sequence[str]) -> dict[str, float | int]:
    """`tool/*` and `time/tool/*` of a step's sampled episodes, see docs/metrics.md; empty without tools.

    Args:
      groups: of the episodes.
      tools: their names, all of which get metrics, called or not.
    """
    if not tools:
        return {}
    episodes = [episode for episode in flattened(groups)[0] if not episode.is_demonstration]
    if not episodes:
        return {}
    calls = [call for episode in episodes for call in episode.calls]
    tokens = Counter[str]()
    for episode in episodes:
        tokens.update(dict(observed(episode)))
    found: dict[str, float | int] = {}
    for name in tools:
        own = [call for call in calls if call.tool == name and call.executed]
        callers = sum(any(call.tool == name and call.executed for call in episode.calls) for episode in episodes)
        found[f"tool/{name}/calls"] = len(own) / len(episodes)
        found[f"tool/{name}/episodes"] = callers / len(episodes)
        if own:
            found[f"tool/{name}/success"] = sum(call.succeeded for call in own) / len(own)
            found[f"tool/{name}/tokens"] = tokens[name] / len(own)
        found[f"time/tool/{name}"] = sum(call.seconds for call in own)
    found["tool/malformed"] = sum(not call.executed for call in calls) / len(episodes)
    for outcome, count in sorted(Counter(call.outcome for call in calls if call.outcome != "ok").items()):
        found[f"tool/outcome/{outcome}"] = count
    return found


def warn_failing_tools(step: int, groups: Sequence[Group], is_news: Mapping[str, Callable[[float], bool]]) -> None:
    """Logs the first error of each tool of whose calls in a step hardly any worked.

    Calls that `reliability` makes to fail are left out.

    Args:
      step: of the groups.
      groups: of the step's episodes.
      is_news: by tool, share of failed calls -> whether it is worth a warning, see `record.doubling`.
    """
    calls = [call for episode in flattened(groups)[0] for call in episode.calls if call.executed]
    for tool in sorted({call.tool for call in calls}):
        own = [call for call in calls if call.tool == tool and (call.succeeded or call.error)]
        errors = [call.error for call in own if call.error]
        if errors and len(errors) >= (1 - HARDLY) * len(own) and is_news[tool](len(errors) / len(own)):
            _log.warning(
                "step %d: %d of %d calls of the tool %s failed; the first: %s (this is said once, samples.jsonl has "
                "the `error` of each call of the logged samples)",
                step, len(errors), len(own), tool, printable(errors[0]),
            )  # fmt: skip


def observed(episode: Episode) -> Iterable[tuple[str, float]]:
    """(tool, tokens) of the observations of an episode; those of a turn with several calls are divided by length."""
    spans = [span for window in episode.sequences if not window.depth for span in window.spans]
    lengths, turn = Counter[int](), -1
    for before, span in itertools.pairwise(spans):
        turn += span.author == "policy" and before.author not in ("policy", "forced")
        lengths[turn] += len(span.tokens) * (span.author == "env")
    found = Counter[str]()
    told = Counter[int]()
    for call in episode.calls:
        told[call.turn] += call.characters
    for call in episode.calls:
        if call.executed and told[call.turn]:
            found[call.tool] += lengths[call.turn] * call.characters / told[call.turn]
    return found.items()
