"""Runs on chats and on preferences, and a reward model as a term of the reward; all with one tiny policy."""

import dataclasses
import json
import math
import shutil
from functools import partial

import jax
import numpy as np
import pytest
from safetensors import safe_open
from transformers import AutoConfig

from rlvr_jax.config import Config
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.batch import layout
from rlvr_jax.learner.optimizer import OptimizerConfig
from rlvr_jax.learner.preferences import rewards_of
from rlvr_jax.learner.supervised import PreferencesConfig, SftConfig, SourceConfig, updates_in_a_call
from rlvr_jax.reporting import jsonl
from rlvr_jax.rollout.episode import Group
from rlvr_jax.tasks import Example
from rlvr_jax.text.tokenizers import encode
from rlvr_jax.training import preferences, reading
from rlvr_jax.training.export import export
from rlvr_jax.training.loop import train
from rlvr_jax.training.networks import network_shapes
from rlvr_jax.training.plan import memory_of_run
from rlvr_jax.training.preferences import longest_pairs, make_pairs, pair_rows, prefer, reference_logprobs
from rlvr_jax.training.reward_models import find_reward_models, make_model_scores
from rlvr_jax.training.setup import make_setup
from rlvr_jax.training.sft import chat_batches, chat_rows, longest_rows, sft
from rlvr_jax.training.start import check_start, initial_critic, initial_params
from rlvr_jax.training.supervised import stacked_shapes
from rlvr_jax.verifiers.pool import Pool
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import episode
from tests.training.test_loop import POLICY, TINY, changed, equal

pytestmark = pytest.mark.usefixtures("one_device")

FAST = OptimizerConfig(learning_rate=1e-2)


def pairs(count: int = 40, lengths: tuple[int, int] = (4, 6)) -> list[dict]:
    """The better completion of a digit is made of larger digits. By default all pairs have one length when packed."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(count):
        high, low = ("".join(map(str, rng.integers(*ends, rng.integers(*lengths)))) for ends in ((6, 10), (0, 4)))
        found.append({"prompt": f"{i % 10}{i // 10}=", "chosen": high, "rejected": low, "margin": 1 + i % 2})
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    ties = [{"prompt": "1=", "chosen": "2", "rejected": "2"}, {"prompt": "1=", "chosen": "2", "rejected": ""}]
    long = [{"prompt": "123456=", "chosen": "2", "rejected": "1"}]
    for name, records in (
        ("pairs", pairs() + ties + long),
        ("ragged", pairs(lengths=(1, 5))),
        (
            "chats",
            [{"prompt": x["prompt"], "completion": x["chosen"][: 1 if i % 3 else 4]} for i, x in enumerate(pairs())]
            + [{"messages": []}],
        ),
        ("sums", [{"prompt": f"{i}#{i}=", "completion": str(2 * i)} for i in range(5)]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def config_of(files, **options) -> Config:
    defaults = {"batch_size": 8, "num_steps": 8, "updates_per_call": 2, "save_every": 4, "optimizer": FAST}
    made = PreferencesConfig(sources={"mine": SourceConfig(str(files / "pairs.jsonl"))}, heldout_share=0.25)
    return dataclasses.replace(TINY, preferences=dataclasses.replace(made, **(defaults | options)))


def with_model(source) -> Config:
    return dataclasses.replace(TINY, reward_models={"rm": str(source)}, reward=(("rm", 1.0), ("score", 0.1)))


def group_of(setup, text: str) -> Group:
    made = Example("modsum/train/0", "12=", "3", "modsum")
    tokens = [*encode(setup.tokenizer, text), setup.end_token]
    return Group(made, (episode(tokens, text, example=made, prompt=encode(setup.tokenizer, "12=")),), (Verdict(1.0),))


def rows_of(workdir) -> list[dict]:
    return jsonl.read(workdir / "metrics.jsonl")


def test_dpo_learns_held_out_pairs_and_goes_on_where_it_stopped(files, tmp_path, monkeypatch, capsys):
    scored, compute = [], preferences.reference_logprobs
    monkeypatch.setattr(preferences, "reference_logprobs", lambda *x: scored.append(1) or compute(*x))
    for steps in (4, 8):
        prefer(config_of(files, beta=0.5, label_smoothing=0.05, num_steps=steps), tmp_path)
    assert len(scored) == 1  # the second part reads the file
    told = capsys.readouterr().err
    assert all(text in told for text in ("3 of 43", "line 41", "line 43"))
    first, *_, last = rows = rows_of(tmp_path)
    assert (first["data/mine/rows"], first["data/mine/left_out"]) == (40, 3)
    assert first["eval/preference_accuracy"] == 0.5  # the policy is its own reference: all rewards are 0
    assert last["eval/preference_accuracy"] > 0.9
    assert last["eval/preference_accuracy_low"] < last["eval/preference_accuracy"]
    assert [row["step"] for row in rows] == [0, 1, 2, 4, 6, 8]
    assert rows[1]["preferences/loss"] > last["preferences/loss"]
    assert json.loads((tmp_path / "heldout.json").read_text())["calibration"]


def test_the_reference_is_the_first_policy_in_both_layouts_and_a_damaged_file_is_made_again(files, tmp_path):
    found = {}
    for packing in ("none", "prefix_tree"):
        setup = make_setup(config_of(files, packing=packing), problems=False, run="preferences")
        rows, heldout = pair_rows(setup)
        pairs = [*rows.of["mine"][:5], *heldout[:4]]
        found[packing] = reference_logprobs(setup, initial_params(setup, jax.random.key(0)), pairs)
    for pair in pairs:
        one, other = (found[packing][pair.number] for packing in found)
        assert len(one) == sum(map(len, pair.completions))
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert {pair.words for pair in heldout}.isdisjoint(pair.words for pair in rows.of["mine"])
    batch = make_pairs(setup, pairs, found["none"])
    assert {*batch.columns} == {"reference"}
    longest = longest_pairs(setup, len(pairs))  # as `rlvr compile` has them
    fits = jax.tree.map(lambda x, most: len(x) == len(most) and x.shape <= most.shape, batch, longest)
    assert all(jax.tree.leaves(fits))
    (tmp_path / "reference.npz").write_bytes(b"PK cut off")
    assert preferences._read_reference(tmp_path / "reference.npz", "key") is None


def test_kto_learns_from_single_completions(files, tmp_path):
    ragged = {"mine": SourceConfig(str(files / "ragged.jsonl"))}
    config = config_of(files, sources=ragged, loss="kto", undesirable=1.2, num_steps=4, save_every=4)
    prefer(dataclasses.replace(config, preferences=dataclasses.replace(config.preferences, beta=0.5)), tmp_path)
    first, *_, last = rows_of(tmp_path)
    assert first["data/mine/rows"] == 80
    assert last["preferences/good_reward"] > last["preferences/bad_reward"]
    assert last["preferences/baseline"] >= 0
    assert last["eval/preference_accuracy"] > 0.7


@pytest.fixture(scope="module")
def reward_model(files, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("reward") / "run"
    prefer(config_of(files, loss="bradley_terry", margin=0.1, centring=0.01), workdir)
    return workdir


def test_a_reward_model_is_exported_and_scores_rollouts(files, reward_model, tmp_path):
    last = rows_of(reward_model)[-1]
    assert last["eval/preference_accuracy"] > 0.9
    assert {"eval/calibration_error", "eval/longer_preferred", "eval/longer_chosen"} <= last.keys()
    export(reward_model, tmp_path / "out")
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert told["architectures"] == ["LlamaForSequenceClassification"]
    assert AutoConfig.from_pretrained(tmp_path / "out").num_labels == 1
    assert told["pad_token_id"] == 0
    with safe_open(tmp_path / "out" / "model.safetensors", "np") as file:
        assert file.get_slice("score.weight").get_shape() == [1, POLICY.width]
        assert "lm_head.weight" not in [*file.keys()]
    scores = []
    for source in (reward_model, tmp_path / "out"):
        config = with_model(source)
        setup = make_setup(config)
        groups = [group_of(setup, text) for text in ("9788", "0123", "4")]
        scored = make_model_scores(setup)(groups)
        scores.append([group.verdicts[0].parts["rm"] for group in scored])
    assert scores[0] == scores[1]  # to the bit
    statistics = json.loads((reward_model / "heldout.json").read_text())
    setup = make_setup(config_of(files, loss="bradley_terry"), problems=False, run="preferences")
    params, _ = reading.load_params(reward_model, network_shapes(setup.policy, setup.mesh, "reward"), network="reward")
    whole = sum(x.nbytes for x in jax.tree.leaves(params))
    assert memory_of_run(make_setup(config)).phases["update"]["reward models"] == whole
    batch = layout([group.episodes[0].sequences[0].prompt for group in groups],
                   [group.episodes[0].sequences[0].response for group in groups], 4, 6)  # fmt: skip
    raw = np.asarray(jax.jit(partial(rewards_of, setup.policy))(params, batch), np.float64)
    expected = (raw - statistics["reward_mean"]) / statistics["reward_std"]
    np.testing.assert_allclose(scores[0], expected, rtol=0, atol=1e-5)
    assert expected[0] > expected[1]  # large digits


def test_reinforcement_learning_raises_a_learned_reward(reward_model, tmp_path):
    with Pool(0) as pool:
        train(changed(with_model(reward_model), training={"num_steps": 1}), tmp_path, pool)
    (row,) = [row for row in rows_of(tmp_path) if "train/reward_rm" in row]
    assert row["train/reward"] == pytest.approx(row["train/reward_rm"] + row["train/reward_score"])


def test_a_critic_may_start_from_a_reward_model(reward_model):
    algorithm = {"baseline": "value", "scale": "token_whitening"}
    setup = make_setup(changed(TINY, critic={"init": str(reward_model)}, algorithm=algorithm))
    shapes = network_shapes(setup.policy, setup.mesh, "reward")
    params, _ = reading.load_params(reward_model, shapes, network="reward")
    assert equal(initial_critic(setup, {}, jax.random.key(0)), params)


@pytest.mark.usefixtures("unfinished_readers_are_silent")
def test_a_missing_or_damaged_model_is_named_before_anything_is_compiled(reward_model, tmp_path):
    export(reward_model, tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    for name, file, content in (("a", "heldout.json", "{}"), ("b", "heldout.json", "{"), ("c", "config.json", "{")):
        shutil.copytree(reward_model, tmp_path / name)
        (tmp_path / name / file).write_text(content)
    wrong = ({"reward_mean": math.nan, "reward_std": 1}, {"reward_mean": 0, "reward_std": 10**400})
    for i, told in enumerate(({"reward_mean": 0, "reward_std": -1}, *wrong)):
        shutil.copytree(reward_model, tmp_path / f"a{i}")
        (tmp_path / f"a{i}" / "heldout.json").write_text(json.dumps(told))
    shutil.copytree(reward_model, tmp_path / "d")
    for metadata in (tmp_path / "d" / "checkpoints").rglob("_METADATA"):
        metadata.unlink()
    shutil.copytree(reward_model, tmp_path / "e")
    for file in (tmp_path / "e" / "checkpoints").rglob("d/*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    for name, why in (
        ("absent", "there is no folder"), ("out", r"model\.safetensors"), ("a", r"heldout\.json"),
        ("b", r"heldout\.json"), ("c", r"config\.json"), ("d", "checkpoints"), ("e", "checkpoints"),
        *((f"a{i}", r"heldout\.json") for i in range(3)),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=rf"config\.reward_models\.rm: .*{why}") as caught:
            check_start(make_setup(with_model(tmp_path / name)), tmp_path / "run")
        assert "\n" not in str(caught.value)


def test_a_model_of_another_vocabulary_or_name_or_kind_is_refused(files, reward_model, tmp_path):
    other = dataclasses.replace(with_model(reward_model), tokenizer="bytes")
    with pytest.raises(ConfigError, match=r"config\.reward_models\.rm.*vocabulary"):
        find_reward_models(make_setup(other))
    taken = dataclasses.replace(TINY, reward_models={"score": str(reward_model)})
    with pytest.raises(ConfigError, match=r"config\.reward_models.*score"):
        make_setup(taken)
    with pytest.raises(ConfigError, match=r"config\.reward_models\.rm"):
        find_reward_models(make_setup(with_model(files)))
    for options, key in (
        ({"sources": {}}, "sources"),
        ({"loss": "bradley_terry", "heldout_share": 0.0}, "heldout_share"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing"),
        ({"sources": {"mine": SourceConfig("nothing.jsonl")}}, r"sources\.mine\.file"),
    ):
        with pytest.raises(ConfigError, match=rf"config\.preferences\.{key}"):
            prefer(config_of(files, **options), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def chats_config(files, **options) -> Config:
    sources = {"a": SourceConfig(str(files / "chats.jsonl"), 3.0), "b": SourceConfig(str(files / "sums.jsonl"))}
    return dataclasses.replace(
        TINY, sft=dataclasses.replace(TINY.sft, sources=sources, num_steps=4, save_every=4, **options)
    )


def test_chats_are_mixed_packed_and_counted(files, tmp_path):
    sft(chats_config(files), tmp_path)
    first, *rows = rows_of(tmp_path)
    assert all(0 < row[name] < 9 for row in rows for name in ("sft/loss", "sft/a/loss", "sft/b/loss"))
    assert (first["data/a/rows"], first["data/a/left_out"], first["data/b/rows"]) == (40, 1, 5)
    assert first["data/b/longest"] == len("3#3=6") + 1
    setup = make_setup(chats_config(files), problems=False, run="sft")
    rows = chat_rows(setup)
    assert [row.source for row in (rows.of["a"][0], rows.of["b"][0])] == [0, 1]
    row = rows.of["b"][3]
    assert (len(row.tokens), row.trained.tolist()) == (6, [False] * 4 + [True] * 2)
    assert row.tokens[-1] == setup.end_token
    packed = chat_batches(setup, rows)(0, 2)
    assert packed.tokens.shape[1] < setup.config.sft.batch_size
    apart = make_setup(chats_config(files, packing=False), problems=False, run="sft")
    batches, shapes = chat_batches(apart, rows)(0, 2), stacked_shapes(apart, longest_rows(apart), 2)
    trained = [np.asarray(x.action_mask).sum(axis=(1, 2)).tolist() for x in (packed, batches)]
    assert trained[0] == trained[1]  # in each of the two updates
    same = jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), batches, shapes)
    assert all(jax.tree.leaves(same))  # as `rlvr compile` has them


def test_chats_that_need_a_chat_template_are_left_out_without_one(files, tmp_path):
    user, answer = {"role": "user", "content": "1="}, {"role": "assistant", "content": "1"}
    call = {"role": "assistant", "content": "1", "tool_calls": [{"name": "add"}]}
    chats = [[user, answer], [user, call], [user, answer, user, answer], [answer]]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": x}) + "\n" for x in chats))
    config = chats_config(files)
    options = dataclasses.replace(config.sft, sources={"a": SourceConfig(str(path))})
    rows = chat_rows(make_setup(dataclasses.replace(config, sft=options), problems=False, run="sft"))
    assert (len(rows.of["a"]), rows.facts["data/a/left_out"]) == (1, 3)


def test_overlong_chats_are_cut_or_left_out(files, tmp_path):
    texts = ["1=", "12345678901234="]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps({"prompt": x, "completion": "12345"}) + "\n" for x in texts))
    config = chats_config(files)
    for overlong, count in (("truncate", 1), ("drop", 1)):
        options = dataclasses.replace(config.sft, sources={"a": SourceConfig(str(path))}, overlong=overlong)
        rows = chat_rows(make_setup(dataclasses.replace(config, sft=options), problems=False, run="sft"))
        assert (len(rows.of["a"]), rows.facts["data/a/left_out"]) == (1, count)
        assert rows.facts["data/a/truncated"] == 0.5


def test_texts_with_characters_that_the_tokenizer_lacks_are_counted_as_one_reason(files, tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{i}: why=", "completion": "1"}) + "\n" for i in range(3)))
    options = dataclasses.replace(chats_config(files).sft, sources={"a": SourceConfig(str(path))})
    setup = make_setup(dataclasses.replace(TINY, sft=options), problems=False, run="sft")
    with pytest.raises(ConfigError, match=r"among 3: 3 contain .*':' ' ' 'w' 'h' 'y'; .*'bytes'.* \(first: [^)]*\)$"):
        chat_rows(setup)


@pytest.mark.parametrize(
    ("num_steps", "save_every", "done", "count"),
    [(1400, 700, 0, 100), (20, 700, 0, 20), (150, 700, 0, 75), (140, 60, 0, 20), (1400, 700, 20, 20), (1399, 7, 7, 1)],
)
def test_a_call_has_as_many_updates_as_meet_the_checkpoints(num_steps, save_every, done, count):
    assert updates_in_a_call(SftConfig(num_steps=num_steps, save_every=save_every), done) == count
