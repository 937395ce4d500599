"""Groups that are taken in the order in which they finish, by count; and collectors that go on from saved states."""

import itertools
import json
from collections import Counter
from concurrent.futures import Future

import jax
import numpy as np
import pytest

from rlvr_jax.envs import Ask, Call, Done, Env, Say, ToolCall, single_turn
from rlvr_jax.errors import CheckpointError
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.playing import Limits, Source
from rlvr_jax.rollout.requests import Turn
from rlvr_jax.tasks import Example, Task
from rlvr_jax.text.tokenizers import byte_tokenizer, encode
from rlvr_jax.verifiers.jobs import ToolError
from rlvr_jax.verifiers.verdict import Verdict

TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id
GROUPS, SIZE = 4, 2


class Timed:
    """A sampler whose turns take decode steps, by random stream and turn; two decode at a time."""

    def __init__(self, took):
        self.took, self.steps, self.queue, self.flying, self.arrays = took, 0, [], frozenset(), []

    def submit(self, requests):
        self.queue += [[request.id, request.drawn, self.took(request.id, request.drawn)] for request in requests]
        self.flying |= {request.id for request in requests}

    def ready(self):
        return True if self.queue else None

    def poll(self, steps=None):
        for _ in itertools.count() if steps is None else range(steps):
            if not self.queue:
                return []
            self.steps += 1
            for turn in self.queue[:2]:
                turn[2] -= 1
            if ended := [turn for turn in self.queue[:2] if turn[2] == 0]:
                self.queue = [turn for turn in self.queue if turn[2] > 0]
                self.flying -= {turn[0] for turn in ended}
                return [self._turn(*turn[:2]) for turn in ended]
        return []

    def _turn(self, id, drawn):
        tokens = np.array([*encode(TOKENIZER, f"{drawn}"), EOS], np.int32)
        return Turn(id, tokens, np.full(len(tokens), -id, np.float32), "stop", self.steps)

    def release(self, ids):
        pass

    def state(self):
        return {"queue": self.queue}, self.arrays

    def put_back(self, state, arrays_of):
        self.queue, self.flying = state["queue"], frozenset(turn[0] for turn in state["queue"])
        assert arrays_of([]) == []


class Tools:
    """A pool that counts the calls of tools."""

    def __init__(self):
        self.calls = Counter()

    def submit(self, jobs):
        futures = []
        for job in jobs:
            future = Future()
            if isinstance(job, ToolCall):
                self.calls[job.args] += 1
                future.set_exception(ToolError("no")) if job.args[1] == 1 else future.set_result(sum(job.args))
            else:
                future.set_result(Verdict(0.5, reason=job.completion))
            futures.append(future)
        return futures


def asking(turns):
    """After each turn but the last of `turns` of an example a tool is called, or the policy itself after the second."""

    def step(state, _):
        number, turn = state
        if turn == turns(number):
            return state, Done({"turns": turn})
        if turn == 2:
            return (number, turn + 1), Ask(("a? ", "b? "))
        return (number, turn + 1), Call((ToolCall("math:fsum", (number, turn)),))

    def receive(state, results):
        return state, Say("".join(f"{result.value}{result.error}" for result in results))

    return Env(lambda e: ((int(e.id[-1]), 1), e.prompt), step, receive, parts=("turns",), one_sequence=False)


def make(patience, turns=lambda number: 1 + number, took=lambda id, drawn: 3 + (7 * id + drawn) % 5):
    env, sampler, pool = asking(turns), Timed(took), Tools()
    read, task = lambda text: encode(TOKENIZER, text), Task("t", "exact", None, None)
    asked = Source(task, single_turn(), lambda text, _: read(text))
    source = Source(task, env, lambda text, _: read(text), (), read, asked)
    limits = Limits(prompt=20, response=90, sequences=9, stop_tokens=(EOS,))
    return Collector(sampler, pool, {"t": source}, TOKENIZER, limits, patience=patience), sampler, pool


def start(collector, name, numbers=None):
    numbers = range(GROUPS) if numbers is None else numbers
    examples = [Example(f"t/train/{number}", "say: ", None, "t") for number in numbers]
    collector.start(name, examples, SIZE, jax.random.key(int(name)), 1.0, numbers=numbers)


def plain(found):
    """Taken groups as data that can be compared."""
    return [
        (name, number, [(e.turns, e.parts, [(s.tokens.tolist(), s.version) for x in e.sequences for s in x.spans])
                        for e in group.episodes], group.verdicts)
        for name, number, group in found
    ]  # fmt: skip


@pytest.mark.parametrize("patience", [0, 4, 100])
def test_groups_are_taken_in_the_order_in_which_they_finish_and_a_long_one_holds_up_nobody(patience):
    collector, sampler, _ = make(patience)
    start(collector, "1")
    first = collector.take_first(2)
    assert {number for _, number, _ in first} == {0, 1}  # those of one and two turns
    assert sampler.steps < 80
    assert sampler.queue or patience == 100  # the others go on
    start(collector, "2")
    rest = [collector.take_first(2), collector.take_first(9)]
    names = [(name, number) for part in (first, *rest) for name, number, _ in part]
    assert sorted(names) == [(name, number) for name in "12" for number in range(GROUPS)]
    assert names.index(("2", 0)) < names.index(("1", 3))
    assert all(names[i] < names[i + 1] for i in (0, 2))  # within a part by order of start
    assert collector.started() == []


@pytest.mark.parametrize("patience", [0, 4])
def test_a_collector_goes_on_from_its_state_and_calls_no_tool_twice(patience):
    collector, sampler, pool = make(patience)
    start(collector, "1")
    collector.take_first(1)
    start(collector, "2")
    state = json.loads(json.dumps(collector.state()[0]))
    calls = Counter(pool.calls)

    other, other_sampler, other_pool = make(patience)
    with other.replaying(state, list):
        for name, numbers in state["batches"]:
            start(other, name, numbers)
    assert other.state()[0] == collector.state()[0]
    assert not other_pool.calls
    assert other_sampler.steps == 0
    found = [plain(other.take_first(2)) for _ in range(4)]
    versions = lambda x: json.loads(json.dumps(x, default=vars))  # noqa: E731
    sampler.steps = 0  # as the other's
    assert versions(found) == versions([plain(collector.take_first(2)) for _ in range(4)])
    assert other_pool.calls + calls == pool.calls
    assert max(pool.calls.values()) <= 2 * SIZE


def test_episodes_that_take_another_course_are_an_error():
    collector, _, _ = make(0)
    start(collector, "1")
    collector.take_first(2)
    state = collector.state()[0]
    other, _, _ = make(0, turns=lambda _: 1)
    with pytest.raises(CheckpointError, match="take another course"), other.replaying(state, list):  # noqa: PT012
        for name, numbers in state["batches"]:
            start(other, name, numbers)
