"""Columns are computed if a loss needs them, and only then."""

import numpy as np
import pytest

from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.scores import fill

BATCH = layout([[1], [2]], [[1], [2]], 1, 1).with_columns(
    advantages=np.ones((2, 1), np.float32), behaviour=np.zeros((2, 1), np.float32)
)


def refuse(_):
    pytest.fail("it was computed")


def test_a_column_that_is_needed_is_computed_from_the_batch_and_the_others_are_not():
    scorers = {"reference": lambda batch: batch.tokens[:, 1:] * np.float32(2), "proximal": refuse, "advantages": refuse}
    filled = fill(("advantages", "reference"), BATCH, scorers)
    assert filled.columns.keys() == {"advantages", "behaviour", "reference"}
    np.testing.assert_array_equal(filled.columns["reference"], [[2], [4]])
    assert filled.columns["advantages"] is BATCH.columns["advantages"]
    assert filled.tokens is BATCH.tokens


def test_a_column_that_nothing_computes_is_refused_by_its_name_before_any_other_is_computed():
    with pytest.raises(ValueError, match=r"values, returns.*advantages, behaviour.*reference"):
        fill(("reference", "values", "returns"), BATCH, {"reference": refuse})
