"""The stream of `rlvr_jax.tasks.stream`: each turn but the last is the summary that the next context window gets."""

from dataclasses import dataclass, replace

from rlvr_jax.envs.env import Action, Done, Env, NewWindow
from rlvr_jax.tasks.stream import NOTHING, newest, window
from rlvr_jax.tasks.task import Example

PARTS = ("held", "empty_summaries", "long_summaries")


@dataclass(frozen=True)
class _State:
    """The state of an episode: its stream, chunks seen, and counts of the summaries that hold the newest digit of the
    place that matters, that are empty, and that are longer than one character."""

    goal: str
    chunks: tuple[str, ...]
    seen: int = 1
    held: int = 0
    empty: int = 0
    long: int = 0


def stream(summaries: bool = True) -> Env:
    """A summary is one character; of a longer one the first is kept.

    Parts: `held`, the share of summaries so far that hold what matters, `empty_summaries` and `long_summaries`.

    Args:
      summaries: False to forget them, so that each window has the chunk alone.
    """

    def start(example: Example) -> tuple[_State, str]:
        shown = example.reference
        if "goal" not in shown:
            raise ValueError(f"it is for problems of the task stream that show streams, and {example.id} is no stream")
        return _State(shown["goal"], tuple(shown["chunks"])), example.prompt

    def step(state: _State, text: str) -> tuple[_State, Action]:
        if state.seen == len(state.chunks):
            return state, Done(answer=text)
        summary = (text[:1] or NOTHING) if summaries else NOTHING
        held = summary == newest(state.goal, list(state.chunks[: state.seen]))
        after = replace(
            state,
            seen=state.seen + 1,
            held=state.held + held,
            empty=state.empty + (not text),
            long=state.long + (len(text) > 1),
        )
        chunk, last = state.chunks[state.seen], after.seen == len(state.chunks)
        return after, NewWindow(window(state.goal, summary, chunk, last))

    def parts_of(state: _State) -> dict[str, float]:
        return {
            "held": state.held / max(state.seen - 1, 1),
            "empty_summaries": float(state.empty),
            "long_summaries": float(state.long),
        }

    return Env(start, step, parts=PARTS, parts_of=parts_of, one_sequence=False)
