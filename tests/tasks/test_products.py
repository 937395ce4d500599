"""Products, and their demonstrations against the environment and the calculator itself."""

import pytest

from configs import calculator
from rlvr_jax.envs import Call, Done, Say, make_env
from rlvr_jax.tasks import make_task
from rlvr_jax.tools import result_of
from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.pool import Pool


def test_demonstrations_are_right_and_say_what_the_environment_says():
    task = make_task("products")
    options = calculator.get_config().to_dict()["tasks"]["products"]["environment_options"]
    env, called = make_env("tools", options), 0
    with Pool(0) as pool:
        for index in range(40):
            example = task.example("train", index)
            shown = task.demonstration(example, index)
            turns = [shown] if isinstance(shown, str) else [message["content"] for message in shown]
            assert verify(task.verifier, "\n".join(turns[::2]), example.reference).score == 1
            assert set(example.prompt + "".join(turns)) <= set(task.alphabet)
            state, _ = env.start(example)
            for turn, told in zip(turns[::2], [*turns[1::2], None], strict=True):
                state, action = env.step(state, turn)
                if told is None:
                    assert isinstance(action, Done)
                    continue
                called += 1
                assert isinstance(action, Call)
                results = [result_of(future.result(), None) for future in pool.submit(action.calls)]
                assert [result.outcome for result in results] == ["ok"]
                assert env.tools.instructions == ""
                assert told == f"{results[0].text}|"
    assert 10 < called < 30


def test_splits_share_no_problem_and_numbers_have_their_digits():
    task = make_task("products", {"digits": (2, 2), "heldout_share": 0.3})
    found = {split: {task.example(split, i).prompt for i in range(200)} for split in ("train", "heldout")}
    assert not found["train"] & found["heldout"]
    for prompt in found["train"] | found["heldout"]:
        left, right = map(int, prompt.removesuffix("=").split("*"))
        assert 10 <= left <= 99
        assert 10 <= right <= 99


@pytest.mark.parametrize(
    "options", [{"digits": (0, 1)}, {"digits": (2,)}, {"call_share": 1.5}, {"heldout_share": -0.1}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="products: "):
        make_task("products", options)


def test_a_say_is_the_only_answer_to_a_mistake():
    env = make_env("tools", calculator.get_config().to_dict()["tasks"]["products"]["environment_options"])
    state, _ = env.start(make_task("products").example("train", 0))
    assert env.step(state, "<12*")[1] == Say("!|")
