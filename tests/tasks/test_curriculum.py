"""The problems that pass rates choose, against frequencies and rates that are computed by hand."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from rlvr_jax.errors import ConfigError
from rlvr_jax.tasks import Example, Mixture, Task, examples_of, make_task, places
from rlvr_jax.tasks.curriculum import Chosen, Counts, CurriculumConfig, choose, key_of, observed, pools

HALF = CurriculumConfig(sampling="towards_half")


def leveled(name, length, levels=("",)):
    example = lambda split, i: Example(f"{name}/{split}/{i}", str(i), None, name, level=levels[i % len(levels)])  # noqa: E731
    return Task(name, "none", example, lambda _: length, levels=() if length else levels)


MIXTURE = Mixture((leveled("a", 6, ("1", "2", "2")), leveled("b", 4)), (3.0, 1.0))


def chosen(config, rates, step, size=8, mixture=MIXTURE, **others):
    return choose(config, mixture, pools(mixture), rates, 0, step, size, **others)


def frequencies(config, rates, steps=200, size=8, mixture=MIXTURE, of=lambda place: place):
    counts = Counter(of(x) for step in range(1, steps) for x in chosen(config, rates, step, size, mixture).places)
    return {key: count / counts.total() for key, count in counts.items()}


def test_without_a_curriculum_problems_come_in_the_order_of_the_mixture_whatever_the_rates():
    for step in (1, 7):
        assert chosen(CurriculumConfig(), {"b": Counts(9, 0)}, step) == Chosen(
            tuple(places(MIXTURE, "train", 0, step - 1, 8))
        )
    assert chosen(CurriculumConfig(), {}, 1) != chosen(CurriculumConfig(), {}, 1, number=1)


def test_counts_are_a_discounted_sum_and_their_rate_a_mean_that_is_right_from_the_start():
    rng = np.random.default_rng(0)
    visits, found = [(rng.integers(0, 9), rng.integers(0, 9)) for _ in range(20)], Counts(0, 0)
    assert found.rate == 0.5
    for right, wrong in visits:
        found = observed(found, right, wrong, 0.8)
    weights = 0.8 ** np.arange(19, -1, -1.0)
    expected = weights @ np.array(visits)
    np.testing.assert_allclose([found.right, found.wrong], expected, rtol=1e-12)
    np.testing.assert_allclose(found.rate, expected[0] / expected.sum(), rtol=1e-12)


def test_keys_name_levels_problems_or_tasks():
    example = MIXTURE.tasks[0].example("train", 4)
    assert [key_of(by, ("a", 4), example) for by in ("problem", "level")] == ["a/4", "a/2"]
    assert key_of("level", ("b", 3), MIXTURE.tasks[1].example("train", 3)) == "b"
    assert [(pool.key, pool.indices) for pool in pools(MIXTURE)] == [
        ("a/1", [0, 3]), ("a/2", [1, 2, 4, 5]), ("b", [0, 1, 2, 3])
    ]  # fmt: skip


@pytest.mark.parametrize(("power", "floor", "half"), [(1.0, 0.02, True), (0.5, 0.05, True), (2.0, 0.1, False)])
def test_levels_are_drawn_by_their_weights_and_their_problems_alike(power, floor, half):
    sampling = "towards_half" if half else "towards_failure"
    config = CurriculumConfig(sampling=sampling, power=power, floor=floor, tries=1)
    rates = {"a/1": Counts(1, 7), "b": Counts(4, 0), "a/2": Counts(0.5, 0.5)}
    weights = {
        key: ((p if half else 1) * (1 - p)) ** power + floor for key, p in {"a/1": 1 / 8, "b": 1.0, "a/2": 0.5}.items()
    }
    expected = {("a", i): weights["a/1"] / 2 for i in (0, 3)} | {("a", i): weights["a/2"] / 4 for i in (1, 2, 4, 5)}
    expected |= {("b", i): weights["b"] / 4 for i in range(4)}
    found = frequencies(config, rates)
    for place, share in expected.items():
        assert found.get(place, 0.0) == pytest.approx(share / sum(weights.values()), abs=0.03)


def test_problems_are_drawn_by_their_weights_and_not_twice_in_a_step():
    config = replace(HALF, by="problem", tries=50)
    rates = {"a/0": Counts(0, 8), "b/1": Counts(8, 0), "a": Counts(5, 5), "b/2": Counts(2, 6)}
    found = frequencies(replace(config, tries=1), rates)
    seen = {("a", 0): 0.0, ("b", 1): 0.0, ("b", 2): 3 / 16}
    weights = {(name, i): seen.get((name, i), 0.25) + 0.02 for name, n in (("a", 6), ("b", 4)) for i in range(n)}
    for place, value in weights.items():
        assert found.get(place, 0.0) == pytest.approx(value / sum(weights.values()), abs=0.03)
    assert all(len(set(chosen(config, rates, step).places)) == 8 for step in range(1, 20))


def test_a_level_of_an_unbounded_task_is_found_and_one_that_does_not_exist_is_refused():
    mixture = Mixture((make_task("chains"),), (1.0,))
    rates = {f"chains/{n}": Counts(8, 0) for n in (1, 2, 4, 5, 6)}
    config = replace(HALF, floor=1e-6)
    found = examples_of(mixture, "train", chosen(config, rates, 3, mixture=mixture).places)
    assert {example.level for example in found} == {"3"}
    assert len({example.prompt for example in found}) == 8
    without = Mixture((replace(leveled("c", None), levels=("7",)),), (1.0,))
    with pytest.raises(ConfigError, match=r"c: none of .* '7'"):
        chosen(HALF, {}, 1, mixture=without)


@pytest.mark.parametrize("sampling", ["mixture", "towards_half"])
def test_the_filter_replaces_what_is_outside_of_the_range(sampling):
    config = CurriculumConfig(by="problem", sampling=sampling, low=0.1, high=0.9, floor=0.0, tries=200)
    config = replace(config, floor=1e-12) if sampling == "towards_half" else config
    outside = {f"a/{i}": Counts(8, 0) for i in range(4)} | {"b/0": Counts(0, 8)}
    rates = {**outside, "b/1": Counts(1, 9), "b/2": Counts(9, 1)}
    steps = [chosen(config, rates, step, size=3) for step in range(1, 60)]
    found = {f"{name}/{index}" for step in steps for name, index in step.places}
    assert found == {"a/4", "a/5", "b/1", "b/2", "b/3"}
    assert (sum(step.left_out for step in steps) > 59) == (sampling == "mixture")  # the others are hardly ever drawn
    assert not any(step.exhausted for step in steps)
    plain = replace(config, low=0.0, high=1.0)
    for step in range(1, 9):  # a problem that passes keeps its place
        for old, new in zip(chosen(plain, rates, step).places, chosen(config, rates, step).places, strict=True):
            assert sampling == "towards_half" or old == new or f"{old[0]}/{old[1]}" in outside


def test_the_filter_is_bounded_and_lets_some_through_by_the_floor():
    everything = {key: Counts(8, 0) for key in ("a/1", "a/2", "b")}
    config = CurriculumConfig(high=0.9, floor=0.0, tries=5)
    found = chosen(config, everything, 3)
    assert (found.places, found.left_out, found.exhausted) == (
        tuple(places(MIXTURE, "train", 0, 2, 8)), 5 * 8, 8
    )  # fmt: skip
    steps = [chosen(replace(config, floor=0.25, tries=1), everything, step) for step in range(1, 200)]
    assert sum(step.left_out for step in steps) / (199 * 8) == pytest.approx(0.75, abs=0.04)


def test_a_choice_is_a_function_of_rates_seed_step_and_draw():
    args = MIXTURE, pools(MIXTURE), {"b": Counts(1, 7)}
    first = choose(HALF, *args, 0, 1, 8)
    assert choose(HALF, *args, 0, 1, 8) == first
    others = [choose(HALF, *args, 1, 1, 8), choose(HALF, *args, 0, 2, 8), choose(HALF, *args, 0, 1, 8, 1)]
    assert len({x.places for x in (first, *others)}) == 4
