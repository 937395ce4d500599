"""Several samplers as one: turns of the policy that is trained, and of others that answer its questions."""

from collections.abc import Mapping, Sequence

from rlvr_jax.rollout.requests import Request, Turn, Turns


class Policies:
    """Samplers by the policy of their requests (`Request.policy`), polled in this order.

    The turns that finish next depend on all of them; the tokens of a turn on its own alone.
    """

    def __init__(self, own: Turns, others: Mapping[str, Turns]) -> None:
        self._samplers = {"": own, **others}

    @property
    def steps(self) -> int:
        """Decode steps of all of them."""
        return sum(sampler.steps for sampler in self._samplers.values())

    def submit(self, requests: Sequence[Request]) -> None:
        for policy, sampler in self._samplers.items():
            if own := [request for request in requests if request.policy == policy]:
                sampler.submit(own)

    def ready(self) -> bool | None:
        found = [ready for sampler in self._samplers.values() if (ready := sampler.ready()) is not None]
        return all(found) if found else None

    def poll(self, steps: int | None = None) -> list[Turn]:
        return [turn for sampler in self._samplers.values() for turn in sampler.poll(steps)]

    def release(self, ids: Sequence[int]) -> None:
        for sampler in self._samplers.values():
            sampler.release(ids)
