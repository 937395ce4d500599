"""Judging trajectories: each with the task's verifier, on its own text and its own reference."""

import numpy as np

from rlvr_jax.rollout.judge import judge
from rlvr_jax.rollout.trajectory import Trajectory
from rlvr_jax.tasks import Example, modsum
from rlvr_jax.verifiers.pool import Pool


def trajectory(reference: str, text: str, prompt: str = "?") -> Trajectory:
    return Trajectory(
        example=Example("modsum/train/0", prompt, reference, "modsum"),
        sample=0,
        prompt=np.zeros(1, np.int32),
        tokens=np.zeros(2, np.int32),
        action_mask=np.ones(2, bool),
        policy_logprobs=np.zeros(2, np.float32),
        finish_reason="stop",
        text=text,
    )


def test_each_trajectory_is_judged_on_its_own_text_against_its_own_reference_in_order():
    texts, references = ["#1", "#1", "#2", "44#2", ""], ["1", "2", "2", "2", "2"]
    trajectories = [trajectory(reference, text) for reference, text in zip(references, texts, strict=True)]
    with Pool(0, 10.0, 1 << 30) as pool:
        verdicts = judge(pool, {"modsum": modsum(digits=4)}, trajectories)
        assert judge(pool, {"modsum": modsum(digits=4)}, []) == []
    assert [verdict.score for verdict in verdicts] == [1, 0, 1, 1, 0]
    assert [verdict.answer for verdict in verdicts] == ["1", "1", "2", "2", None]


def test_a_thought_that_the_prompt_has_opened_is_no_answer_until_it_is_closed():
    texts = ["#1", "#2</think>#1", "<think>#2</think>#1", "#1</think>"]
    trajectories = [trajectory("1", text, prompt) for prompt in ("?", "?<think>\n") for text in texts]
    with Pool(0) as pool:
        verdicts = judge(pool, {"modsum": modsum(digits=4)}, trajectories)
    assert [verdict.score for verdict in verdicts] == [1, 1, 1, 0, 0, 1, 1, 0]
