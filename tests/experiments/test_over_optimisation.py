"""The letters task and the picture of a learned reward that is over-optimised."""

import numpy as np
import pytest

from experiments.benchmarks.letters import HIGHEST, LOWEST, gold, gold_of, letters
from experiments.benchmarks.over_optimisation import fits, picture, smoothed, stored
from tests.experiments.runs import ROOT


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("ffccii", HIGHEST),
        ("dddddddddddd", LOWEST),
        ("fci", 3.0),
        ("fffcci", 2 + 2 + 1 - 0.75),
        ("", 0.0),
        ("::a", 0.0),
    ],
)
def test_gold_counts_wanted_letters_twice_and_repetitions_against(text, value):
    assert gold_of("fci", text) == value
    assert gold(text, "fci").score == pytest.approx((value - LOWEST) / (HIGHEST - LOWEST))


def test_demonstrations_are_noise_around_the_wanted_letters():
    task = letters()
    examples = [task.example("train", i) for i in range(300)]
    texts = [task.demonstration(example, 0) for example in examples]
    golds = [gold_of(example.reference, text) for example, text in zip(examples, texts, strict=True)]
    assert 2.0 < np.mean(golds) < 3.2
    assert {len(text) for text in texts} == {*range(6, 13)}
    assert all(len({*example.reference}) == 3 for example in examples)
    heldout = {task.example("heldout", i).reference for i in range(50)}
    assert heldout.isdisjoint(example.reference for example in examples)
    with pytest.raises(ValueError, match="5"):
        letters(5)


def test_the_stored_curves_show_what_the_page_says():
    curves = stored()
    text = (ROOT / "docs" / "preferences.md").read_text()
    three = lambda x: " / ".join(f"{number:.2f}" for number in x)  # noqa: E731
    for of_seeds in curves["rl"].values():
        for key in ("gold", "proxy", "distance"):
            assert f"| {three(curve[key][-1] for curve in of_seeds)} |" in text
    for of_seeds in curves["best_of_n"].values():
        for curve in of_seeds:
            assert " | ".join(f"{number:.2f}" for number in curve["gold"]) in text
    found = fits(curves)
    assert set(found) == set(curves["fits"])
    for name, fit in found.items():
        assert fit == pytest.approx(curves["fits"][name], abs=2e-3)
        assert f"| {fit['a']:.2f} | {fit['b']:.2f} | {fit['unexplained variance']:.2f} |" in text
    for small, large, held in zip(*curves["rl"].values(), strict=True):
        assert small["gold"][-1] < 0 < large["gold"][-1] < held["gold"][-1]
    assert picture(curves).startswith(b"\x89PNG")
    assert smoothed([1.0, 3.0, 5.0], 2) == [1.0, 2.0, 4.0]
