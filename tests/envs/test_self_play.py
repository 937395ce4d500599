"""Games of several roles: what each sees, how games end, and that a role's samples are compared with each other."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from rlvr_jax.config import Config, RolloutConfig, TaskConfig
from rlvr_jax.envs import Done, Env, Say, checked, make_env
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.advantages import advantages
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.rewards import reward
from rlvr_jax.learner.samples import samples_of
from rlvr_jax.rollout import kept
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.playing import Source
from rlvr_jax.tasks import Example, make_task
from rlvr_jax.tasks.games import best, value
from rlvr_jax.tasks.nim import NIM
from rlvr_jax.tasks.task import draw
from rlvr_jax.tasks.tic_tac_toe import free, moved, winner
from rlvr_jax.text.prompts import continuation
from rlvr_jax.text.tokenizers import make_tokenizer
from rlvr_jax.training.problems import prompted_tasks, sources
from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.pool import Pool
from tests.rollout.test_collector import LIMITS, TOKENIZER, Policy, texts

TASK = make_task("tic_tac_toe")
EXAMPLE = Example("tic_tac_toe/train/0", ".........|", {"position": "........."}, "tic_tac_toe")
WIN = (["1", "2", "3"], ["4", "5"])  # by the first
LIMITS = dataclasses.replace(LIMITS, response=60, turn=2)


def played(said, env=None, limits=LIMITS):
    env = env or make_env("tic_tac_toe")
    ends = tuple(TOKENIZER.convert_tokens_to_ids(x) for x in env.ends)
    source = Source(TASK, env, continuation(TOKENIZER, "plain"), ends)
    with Pool(0) as pool:
        collector = Collector(Policy(*said), pool, {"tic_tac_toe": source}, TOKENIZER, limits)
        collector.start(0, [EXAMPLE], len(said), jax.random.key(0), 1.0)
        return collector.take(0)[0]


def test_each_role_has_a_context_of_its_own_and_an_episode():
    group = played([*WIN, ["5", "1"], ["5"]])
    first, second, third, fourth = group.episodes
    assert texts(first) == [
        ("prompt", ".........|"), ("policy", "1"), ("env", "x..o.....|"), ("policy", "2"), ("env", "xx.oo....|"),
        ("policy", "3"),
    ]  # fmt: skip
    assert texts(second) == [
        ("prompt", ".........|"), ("env", "o........|"), ("policy", "4"), ("env", "oo.x.....|"), ("policy", "5"),
    ]  # fmt: skip
    assert [(x.role, x.answer, x.finish_reason) for x in (first, second)] == [
        ("first", "first 14253", "stop"), ("second", "second 14253", "stop"),
    ]  # fmt: skip
    assert [verdict.score for verdict in group.verdicts] == [1, 0, 1, 0]
    assert (fourth.answer, group.verdicts[3].parts["illegal"], third.turns) == ("second 5?", 1, ("5",))
    again = kept.from_json(kept.to_json([group]), [EXAMPLE])[0]
    assert [(x.role, texts(x)) for x in again.episodes] == [(x.role, texts(x)) for x in group.episodes]


def test_the_samples_of_a_role_are_a_group_of_their_own():
    group = played([*WIN, *WIN, ["1", "9"], ["2", "1"], *WIN])
    rewards = reward((("score", 1.0),), [group], ("won",))
    samples = samples_of([group], rewards, 60)
    assert rewards.values.tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
    assert samples.groups.tolist() == [0, 1] * 4
    assert np.all(advantages(AlgorithmConfig(baseline="group_mean", scale="none"), samples) == 0)
    group = dataclasses.replace(group, verdicts=tuple(
        dataclasses.replace(x, score=s) for x, s in zip(group.verdicts, (1, 0, 0, 1, 1, 0, 0.5, 0.5), strict=True)
    ))  # fmt: skip
    samples = samples_of([group], reward((("score", 1.0),), [group], ("won",)), 60)
    found = advantages(AlgorithmConfig(baseline="group_mean", scale="none"), samples)
    np.testing.assert_allclose(found, np.array([3, -3, -5, 5, 3, -3, -1, 1]) / 8, atol=1e-6)


@pytest.mark.parametrize(
    ("said", "change", "answers", "reasons", "scores"),
    [
        ((["x"], []), {}, ("first ?", "second ?"), ["stop", "stop"], [0, 1]),
        ((["xx"], []), {}, ("first ?", "second ?"), ["stop", "stop"], [0, 1]),  # cut off
        ((["1", "2"], ["4", "5"]), {"turns": 1}, (None, None), ["turns", "cancelled"], [0, 0]),
        ((["1", "2"], ["4", "5"]), {"response": 15}, (None, None), ["cancelled", "window"], [0, 0]),
    ],
)
def test_a_game_ends_for_all_roles(said, change, answers, reasons, scores):
    group = played(said, limits=dataclasses.replace(LIMITS, **change))
    assert tuple(x.answer for x in group.episodes) == answers
    assert [x.finish_reason for x in group.episodes] == reasons
    assert [verdict.score for verdict in group.verdicts] == scores
    assert all(verdict.error is None for verdict in group.verdicts)


def test_a_turn_that_hits_a_limit_is_that_of_its_own_role():
    env = dataclasses.replace(make_env("tic_tac_toe"), cut=None)
    group = played([["xx"], []], env)
    assert [(x.finish_reason, x.cut_off) for x in group.episodes] == [("length", True), ("cancelled", False)]


def test_an_environment_that_fails_leaves_all_roles_out():
    def step(*_):
        raise RuntimeError("no luck")

    env = dataclasses.replace(make_env("tic_tac_toe"), step=step)
    group = played([["1"], []], env)
    assert [x.finish_reason for x in group.episodes] == ["env_error"] * 2
    assert all("no luck" in verdict.error for verdict in group.verdicts)
    assert [len(x.turns) for x in group.episodes] == [1, 0]


def test_an_opponent_plays_at_random_by_problem_and_sample():
    env = make_env("tic_tac_toe", {"opponent": "random"})
    group = played([["1", "2"]] * 4, env, dataclasses.replace(LIMITS, turns=2))
    assert len({texts(x)[2][1] for x in group.episodes}) > 1
    for number, episode in enumerate(group.episodes):
        others = free("o........")
        place = others[draw("tic_tac_toe", f"{EXAMPLE.id}/{number}", 1) % 8]
        assert texts(episode)[2] == ("env", f"{moved('x........', place, 'o')}|")
        assert (episode.role, episode.sample) == ("", number)


@pytest.mark.parametrize("said", ["123456789", "951", "573"])
def test_an_optimal_opponent_is_never_beaten_and_takes_what_it_is_given(said):
    env = make_env("tic_tac_toe", {"opponent": "optimal"})
    state, action = env.drawn(env.start(EXAMPLE)[0], 0), None
    while not isinstance(action, Done):
        moves = [move for move in said if move in free(state.position)] or free(state.position)
        state, action = env.step(state, moves[0])
    assert verify("tic_tac_toe", action.answer, EXAMPLE.reference).reason in ("drawn", "lost")
    # Two in a line are completed.
    state, action = env.step(env.start(dataclasses.replace(EXAMPLE, reference={"position": "oo.xx...x"}))[0], "7")
    assert action.answer == "first 73"


def test_a_pile_of_nim_is_lost_if_it_is_a_multiple_of_4_and_won_by_leaving_one():
    won = [value(NIM, f"{pile:02d}") for pile in range(30)]
    assert won == [1 if pile % 4 else -1 for pile in range(30)]
    assert [best(NIM, f"{pile:02d}") for pile in (1, 5, 6, 7, 8, 14)] == ["1", "1", "2", "3", "123", "2"]
    task = make_task("nim", {"most": 9, "winnable": True})
    assert {task.example("train", i).reference["position"] for i in range(99)} == {
        f"0{i}" for i in (1, 2, 3, 5, 6, 7, 9)
    }
    messages = make_task("nim").demonstration(Example("nim/train/0", "09|", {"position": "09"}, "nim"), 3)
    piles = [9, *(int(x["content"][:2]) for x in messages[1::2])]
    for pile, message, after in itertools.zip_longest(piles, messages[::2], piles[1:], fillvalue=0):
        assert pile - int(message["content"]) - 3 <= after < max(1, pile - int(message["content"]))
    for options in ({"most": 0}, {"most": 100}):
        with pytest.raises(ValueError, match=rf"most.*{options['most']}"):
            make_task("nim", options)


@pytest.mark.parametrize(
    ("completion", "score", "illegal"),
    [
        ("first 131", 1, 0),
        ("second 131", 0, 0),
        ("first 32", 0, 0),
        ("first 14", 0, 0),
        ("first 33", 1, 0),
        ("second 33", 0, 1),
    ],
)
def test_games_of_nim_are_played_again(completion, score, illegal):
    verdict = verify("nim", completion, {"position": "05"})
    assert (verdict.score, verdict.parts["illegal"], verdict.error) == (score, illegal, None)
    assert "position" in verify("nim", completion, {"position": "00"}).error


def test_actions_for_roles_that_there_are_not_are_refused():
    env = make_env("tic_tac_toe")
    with pytest.raises(ValueError, match=r"role 2.*first"):
        checked(env, (None, Say("x", role=2)))
    with pytest.raises(ValueError, match="ends of 1 roles"):
        checked(env, (None, Done(roles=(Done(),))))
    with pytest.raises(ValueError, match="role 1"):
        checked(Env(None, None), (None, Say("x", role=1)))
    with pytest.raises(ValueError, match=r"opponent.*'me'"):
        make_env("tic_tac_toe", {"opponent": "me"})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rollout": RolloutConfig(group_size=7)}, "2 roles.*config.rollout.group_size gives 7.*multiple of 2"),
        ({"algorithm": AlgorithmConfig(demonstrations=1)}, "gives 7 samples"),
        ({"algorithm": AlgorithmConfig(loss="preferences")}, "config.algorithm.loss = 'preferences'.*policy_gradient"),
        ({"algorithm": AlgorithmConfig(baseline="greedy")}, "config.algorithm.baseline = 'greedy'"),
    ],
)
def test_samples_that_make_no_whole_games_are_refused(change, why):
    config = Config(tasks={"t": TaskConfig()}, **change)
    tokenizer = make_tokenizer("characters", {"t": TASK.alphabet})
    with pytest.raises(ConfigError, match=why):
        sources(config, {"t": TASK}, {"t": make_env("tic_tac_toe")}, tokenizer)


def test_self_play_has_no_held_out_problems_and_play_against_another_has():
    tokenizer = make_tokenizer("characters", {"t": TASK.alphabet})
    config = Config(tasks={"t": TaskConfig()})
    for opponent, count in (("self", 0), ("random", None)):
        tasks, _ = prompted_tasks(
            config, {"t": TASK}, {"t": make_env("tic_tac_toe", {"opponent": opponent})}, tokenizer
        )
        assert tasks["t"].num_examples("heldout") == count


def test_positions_are_legal_and_splits_share_none():
    examples = {split: [TASK.example(split, i) for i in range(300)] for split in ("train", "heldout")}
    boards = {split: {example.reference["position"] for example in own} for split, own in examples.items()}
    assert not boards["train"] & boards["heldout"]
    for board in boards["train"] | boards["heldout"]:
        assert board.count("o") - board.count("x") in (0, 1)
        assert (len(free(board)) >= 6, winner(board)) == (True, "")
    assert TASK.example("train", 5) == TASK.example("train", 5)


def test_the_winner_of_every_board():
    boards = np.array(list(itertools.product(".xo", repeat=9))).reshape(-1, 3, 3)
    diagonals = [np.stack([x[:, i, i] for i in range(3)], axis=1) for x in (boards, boards[:, :, ::-1])]
    lines = np.concatenate([boards, boards.swapaxes(1, 2), np.stack(diagonals, axis=1)], axis=1)
    won = {piece: (lines == piece).all(axis=2).any(axis=1) for piece in "xo"}
    full = (boards != ".").all(axis=(1, 2))
    for board, x, o, nothing_free in zip(boards, won["x"], won["o"], full, strict=True):
        if not (x and o):
            assert winner("".join(board.ravel())) == ("x" if x else "o" if o else "." if nothing_free else "")


def test_demonstrations_are_random_legal_games():
    example, first = TASK.example("train", 0), set()
    for index in range(30):
        messages, board = TASK.demonstration(example, index), example.reference["position"]
        first.add(messages[0]["content"])
        for message in messages:
            if message["role"] == "assistant":
                assert message["content"] in free(board)
                board = moved(board, message["content"])
            else:
                (change,) = [pair for pair in zip(board, message["content"][:-1], strict=True) if pair[0] != pair[1]]
                assert (change, message["content"][-1]) == ((".", "o"), "|")
                board = message["content"][:-1]
                assert not winner(board)
        assert messages[-1]["role"] == "assistant"
    assert first == set(free(example.reference["position"]))


@pytest.mark.parametrize(
    ("completion", "score", "reason"),
    [
        ("first 14253", 1, "won"),
        ("second 14253", 0, "lost"),
        ("first 123457698", 0.5, "drawn"),
        ("second 152378469", 0, "lost"),
        ("first 1?", 1, "won"),
        ("second 11", 0, "lost"),
        ("first 14", 0, "the game was not finished"),
        ("third 14253", 0, "the game was not finished"),
        ("1\n2\n3", 0, "the game was not finished"),
    ],
)
def test_games_are_played_again(completion, score, reason):
    verdict = verify("tic_tac_toe", completion, {"position": "........."})
    assert (verdict.score, verdict.reason, verdict.error) == (score, reason, None)
    if reason == "drawn":
        assert verify("tic_tac_toe", completion, {"position": "........."}, draw=1.0).score == 1


def test_what_is_no_position_is_an_error():
    assert "position" in verify("tic_tac_toe", "first 1", {"position": "xxx......"}).error
    assert "draw" in verify("tic_tac_toe", "first 1", {"position": "........."}, draw=2.0).error
    with pytest.raises(ValueError, match=r"plies.*7"):
        make_task("tic_tac_toe", {"plies": 7})
