"""A table of all keys of the config: each changes the right number. Those that need a run: `test_keys_of_runs.py`."""

import json
import operator

import jax
import numpy as np
import pytest

from rlvr_jax.config import Config, from_dict, to_dict
from rlvr_jax.learner.baselines import tracker_decay
from rlvr_jax.learner.optimizer import make_optimizer
from rlvr_jax.policy import ADAPTERS
from rlvr_jax.rollout.layout import param_shapes as sampler_shapes
from rlvr_jax.rollout.memory import cache_bytes
from rlvr_jax.training.functions import make_loss
from rlvr_jax.training.history import prior
from rlvr_jax.training.plan import memory_of_run
from rlvr_jax.training.programs import batch_shapes
from rlvr_jax.training.setup import training_mixture
from tests.hf.checkpoints import random_weights, write_model
from tests.text.pretrained import EOS, tokenizer
from tests.training import keys_of_supervised, test_keys_of_runs
from tests.training.keys import (
    HERE,
    By,
    Row,
    adapters,
    chosen,
    count,
    credit_of,
    critics_embedding,
    dropped,
    followed,
    further,
    in_flight,
    leaves,
    logits,
    logits_by_hand,
    memory_of_moments,
    microbatches,
    of_setup,
    on_one_device,
    optimizer_of,
    patience,
    played,
    pool_of,
    prompt,
    refusal,
    refused_with,
    remembered,
    rotations,
    same,
    sampling,
    selected,
    shape,
    signal_of,
    split,
    squared_error,
    start_weights,
    surrogate,
    task_of,
    trained,
    updates,
    with_keys,
    wrong,
)
from tests.training.keys_of_supervised import write_supervised
from tests.training.test_loop import TINY, changed
from tests.training.test_setup import SHAPE

# Room for prompts of any kind, and a policy of more than one layer, head and frequency.
PLAIN = changed(
    TINY,
    tokenizer="bytes",
    policy={"num_layers": 2, "num_kv_heads": 1, "max_length": 1000},
    rollout={"max_prompt_length": 900},
)
TEMPLATE = {"prompt.format": "template", "prompt.template": "{system}Q: {prompt} A:"}
OTHER_TASK = {"tasks.other": {"name": "modsum", "options": {"digits": 2}}}
MINE = {"tasks.modsum.file": "FILES/mine.jsonl", "tasks.modsum.verifier": "modsum", "tasks.modsum.options": {}}
MINE_NUMBERS = [("1=", "1"), ("2=", "2"), ("3=", "3"), ("333333=", "8")]
LONG = {"rollout.max_response_length": 20}
AGAIN = {"tasks.modsum.environment": f"{HERE}:again"} | LONG
YARN = {
    "policy.rope_scaling.type": "yarn",
    "policy.rope_scaling.factor": 4.0,
    "policy.rope_scaling.original_length": 4096,
}
LLAMA3 = YARN | {"policy.rope_scaling.type": "llama3"}
LONGROPE = YARN | {
    "policy.rope_scaling.type": "longrope",
    "policy.rope_scaling.short_factors": (1.0, 2.0, 3.0, 4.0),
    "policy.rope_scaling.long_factors": (1.0, 4.0, 8.0, 16.0),
}
LONG_ROPE = LONGROPE | {"policy.rope_scaling.original_length": 512}
PLACES = {"tasks.modsum": {"name": f"{HERE}:places"}}
NO_KL = {"algorithm.kl_coef": 0.0}
RECOMPUTE, TRUNCATED = {"algorithm.proximal": "recompute"}, {"algorithm.correction": "token_tis"}
COEF, CLIP_COV = {"algorithm.entropy_coef": 0.25}, {"algorithm.entropy": "clip_cov", "algorithm.entropy_share": 0.5}
BY_ENTROPY = {"algorithm.entropy": "adaptive"}
SAPO = {"algorithm.clip": "sapo"}
UNSCALED, SCORE = {"algorithm.scale": "none"}, {"reward": (("score", 1.0),)}
UNCHANGED = UNSCALED | {"algorithm.baseline": "none"}
TARGET, EXACT = {"algorithm.length_target": 4}, {"algorithm.length_reward": "exact", "algorithm.length_target": 4}
SOFT = {"algorithm.length_reward": "soft_overlong", "algorithm.length_buffer": 2}
LORA = {"policy.lora.rank": 4}
CRITIC = {"algorithm.baseline": "value", "algorithm.scale": "none"}
TO_GO = {"algorithm.baseline": "none", "algorithm.scale": "none", "algorithm.kl_coef": 0.0}
ADAPTIVE = {"algorithm.kl_reward_coef": 0.5, "algorithm.kl_coef": 0.0, "algorithm.kl_reward_target": 3.0}
VINE = TO_GO | {"algorithm.baseline": "monte_carlo"}
MOVES = {"algorithm.reference_every": 1}
HALF, RARE, ONCE = {"curriculum.sampling": "towards_half"}, {"curriculum.floor": 1e-9}, {"curriculum.tries": 1}
OWN = MINE | {"tasks.modsum.heldout_share": 0.0}
BY_PROBLEM = OWN | {"curriculum.by": "problem"}
indices = lambda places: sorted({index for _, index in places})  # noqa: E731
zeros = lambda places: [index for _, index in places].count(0)  # noqa: E731
of_the_file = lambda _: random_weights(SHAPE)["model.embed_tokens.weight"]  # noqa: E731
doubled = lambda plain, found: np.allclose(found, 2 * plain)  # noqa: E731
more = lambda plain, found: found > plain  # noqa: E731
rows = lambda ready: batch_shapes(ready, 1, ()).tokens.shape[0]  # noqa: E731
turns = lambda group, _: [(len(x.turns), x.finish_reason) for x in group.episodes]  # noqa: E731
parts = lambda group, _: [dict(verdict.parts) for verdict in group.verdicts]  # noqa: E731
stops = lambda _, requests: [request.stop_tokens for request in requests]  # noqa: E731
mixed = lambda ready: [task.name for task in training_mixture(ready).tasks]  # noqa: E731
budgets = lambda _, requests: [request.budget for request in requests]  # noqa: E731
said_a_number = {"tasks.modsum.verifier": f"{HERE}:judge"}


def optimizer_rows(run):
    """The rows of an optimizer: that of the policy or the critic in reinforcement learning, or of a supervised run."""
    group = "optimizer" if run == "rl" else f"{run}.optimizer"
    # Ten updates.
    length = (
        {f"{run}.num_steps": 10, f"{run}.save_every": 10}
        if run in ("sft", "preferences")
        else {"training.num_steps": 5, "algorithm.minibatches": 2}
    ) | (CRITIC if run == "critic" else {})
    made = By(lambda config: make_optimizer(operator.attrgetter(group)(config), 10))  # runs share equal ones
    beside = length | {f"{group}.decay": "linear"}
    values = {"learning_rate": 0.02, "warmup_steps": 2, "decay": "cosine", "b1": 0.5, "b2": 0.5, "eps": 0.1}
    values |= {"weight_decay": 0.3, "clip_norm": 0.5, "name": "adafactor", "moments": "bfloat16", "beta": 0.5}
    critic = CRITIC if run == "critic" else {}
    return [
        *(Row(f"{group}.{key}", value, optimizer_of(run), made, beside) for key, value in values.items()),
        Row(f"{group}.offload", True, memory_of_moments(run), {"device", "pinned_host"}, critic),  # counts stay
    ]


# Keys of a policy's logits, all at once.
ARCHITECTURES = [
    {
        "rope_pattern": ("none", "scaled"),
        "window_pattern": (2, 0),
        "norm_placement": "both",
        "norm_eps": 0.5,
        "norm_offset": 1.0,
        "qk_norm": "head",
        "qkv_bias": True,
        "score_dim": 3,
        "activation": "gelu_tanh",
        "scale_embeddings": True,
        "tie_embeddings": False,
    },
    {"norm_placement": "post"},
]
of_embedding = of_setup(lambda s: str(sampler_shapes(s.policy, s.sampling_mesh)["embed"].dtype))
scaled, scaled_by_hand = rotations("scaled")
unscaled, unscaled_by_hand = rotations("unscaled")


ROWS = [
    # What the run starts from.
    Row("pretrained", "FILES/model", start_weights("embed"), By(of_the_file)),
    Row("shrink", 2, shape("embed"), (258, 32), {"policy.width": 64}),
    Row("tokenizer", "characters", of_setup(lambda s: len(s.tokenizer)), 14),
    # Problems and their words.
    Row("tasks.modsum.name", "countdown", task_of(lambda t: t.verifier), "countdown", {"tasks.modsum.options": {}}),
    Row("tasks.modsum.options", {"digits": 5}, task_of(lambda t: len(t.example("train", 0).prompt)), 6),
    Row("tasks.modsum.weight", 3.0, trained, ["modsum"] * 6 + ["other"] * 2, OTHER_TASK),
    Row("tasks.modsum.weight", 0.0, trained, ["other"] * 8, OTHER_TASK),
    Row("tasks.modsum.weight", 0.0, of_setup(mixed), ["other"], OTHER_TASK),
    Row("tokenizer", "FILES/dated", played(stops, "a"), [(EOS,), (EOS,)]),
    Row("tasks.modsum.system", "Be brief.", prompt, lambda plain, found: found == f"Be brief.\n{plain}", TEMPLATE),
    Row("tasks.modsum.shots", 2, prompt, lambda plain, found: found.count("#") == 2 and found.endswith(plain)),
    Row("tasks.modsum.thinking", "on", prompt, lambda plain, found: found == f"{plain}<think>\n"),
    Row("tasks.modsum.template", "Sum {question}!", prompt, lambda plain, found: found == f"Sum {plain}!"),
    Row("tasks.modsum.verifier", f"{HERE}:judge", played(parts, "x"), [{"bonus": 0.5}] * 2),
    Row("tasks.modsum.verifier_options", {"bonus": 0.25}, played(parts, "x"), [{"bonus": 0.25}] * 2, said_a_number),
    Row("tasks.modsum.alphabet", "0<>", of_setup(lambda s: len(s.tokenizer)), lambda plain, found: found == plain + 2,
        {"tokenizer": "characters"}),
    Row("tasks.modsum.environment", f"{HERE}:again", played(turns, "a", "b"), [(2, "stop")] * 2, LONG),
    Row("tasks.modsum.environment_options", {"turns": 3}, played(turns, *"abc"), [(3, "stop")] * 2, AGAIN),
    Row("tasks.modsum.file", "FILES/mine.jsonl", split("train"), lambda _, found: set(found) < set(MINE_NUMBERS),
        {key: value for key, value in MINE.items() if key != "tasks.modsum.file"}),
    Row("tasks.modsum.prompt", "question", split("train"), lambda _, found: {q for q, _ in found} < {*"abcd"}, MINE),
    Row("tasks.modsum.reference", "gold", split("train"), lambda _, found: {r for _, r in found} == {"9"}, MINE),
    Row("tasks.modsum.heldout_file", "FILES/heldout.jsonl", split("heldout"), [("5=", "5")], MINE),
    Row("tasks.modsum.heldout_share", 0.0, split("heldout"), [], MINE),
    Row("prompt.format", "template", prompt, lambda plain, found: found == f"Q: {plain.rstrip()} A:",
        {"prompt.template": TEMPLATE["prompt.template"]}),
    Row("prompt.template", "{prompt} Why?", prompt, lambda plain, found: plain == f"Q: {found[:-5]} A:", TEMPLATE),
    Row("prompt.date", "2030-02-03", prompt, lambda plain, found: (plain[:6], found[:6]) == ("01 Jan", "03 Feb"),
        {"prompt.format": "chat", "tokenizer": "FILES/dated"}),
    Row("data.data_dir", "FILES/data", prompt, lambda _, found: found.endswith("/data "), PLACES),
    Row("data.manual_dir", "/manual", prompt, lambda plain, found: found == f"{plain}/manual", PLACES),
    # The policy. Logits are those of a decoder in float64.
    Row("policy.vocab_size", 300, shape("embed"), (300, 16)),
    Row("policy.num_layers", 3, shape("layers", "mlp", "gate"), (3, 16, 16)),
    Row("policy.width", 32, shape("embed"), (258, 32)),
    Row("policy.num_heads", 4, shape("layers", "attention", "q"), (2, 16, 4, 8)),
    Row("policy.num_kv_heads", 2, shape("layers", "attention", "k"), (2, 16, 2, 8)),
    Row("policy.head_dim", 6, shape("layers", "attention", "out"), (2, 2, 6, 16)),
    Row("policy.mlp_width", 24, shape("layers", "mlp", "gate"), (2, 16, 24)),
    Row("policy.rotary_dim", 4, scaled, scaled_by_hand),
    Row("policy.rope_theta", 100.0, scaled, scaled_by_hand),
    Row("policy.rope_theta_unscaled", 100.0, unscaled, unscaled_by_hand),
    Row("policy.rope_scaling.type", "linear", scaled, scaled_by_hand, {"policy.rope_scaling.factor": 4.0}),
    *(
        Row(f"policy.rope_scaling.{key}", value, scaled, scaled_by_hand, beside)
        for key, value, beside in [
            ("factor", 8.0, YARN),
            ("original_length", 512, YARN),
            ("beta_slow", 0.1, YARN),
            ("beta_fast", 200.0, YARN),
            ("truncate", False, YARN),
            ("attention_factor", 1.5, YARN),
            ("low_freq_factor", 0.25, LLAMA3),
            ("high_freq_factor", 8.0, LLAMA3),
            ("short_factors", (1.0, 2.0, 3.0, 9.0), LONGROPE),
            ("long_factors", (1.0, 4.0, 8.0, 9.0), LONG_ROPE),
        ]
    ),
    Row("policy.lora.rank", 4, shape(ADAPTERS, "attention", "q", "a"), (2, 16, 4), {"policy.lora.rank": 1}),
    Row("policy.lora.alpha", 64.0, adapters, doubled, LORA),
    Row("policy.lora.targets", ("q", "up"), of_setup(lambda s: jax.tree.map(lambda _: 0, s.param_shardings[ADAPTERS])),
        {"attention": {"q": {"a": 0, "b": 0}}, "mlp": {"up": {"a": 0, "b": 0}}}, LORA),
    Row("policy.max_length", 905, refusal, refused_with("max_length = 905", "900 + 6")),
    Row("policy.init_scale", 0.04, of_setup(lambda s: s.policy.init_scale), 0.04),
    Row("policy.dtype", "bfloat16", of_embedding, "bfloat16"),
    Row("policy.param_dtype", "bfloat16", of_setup(lambda s: str(s.policy.param_dtype)), "bfloat16"),
    Row("policy.cache_dtype", "int8", of_setup(lambda s: cache_bytes(s.policy, 1, 1)), 2 * 2 * 1 * (8 + 4)),
    Row("policy.remat", "full", count("SaveOnlyTheseNames"), 1),
    Row("policy.attention", "reference", count("scan["), lambda plain, found: found < plain),
    Row("policy.head_chunk", 4, count("scan["), more),
    # Rollouts.
    Row("rollout.prompts", 16, sampling("batch_size"), 16),
    Row("rollout.group_size", 2, sampling("group_size"), 2),
    Row("rollout.max_prompt_length", 800, sampling("prompt_length"), 800),
    Row("rollout.max_prompt_length", 3, refusal, refused_with("4 tokens", "max_prompt_length = 3")),
    Row("rollout.max_response_length", 5, sampling("max_response_length"), 5),
    Row("rollout.max_response_length", 5, played(budgets, "a"), [5, 5]),
    Row("rollout.max_turn_length", 3, played(budgets, "a"), [3, 3]),
    Row("rollout.max_turns", 1, played(turns, "a", "b"), [(1, "turns")] * 2, AGAIN),
    Row("rollout.max_sequences", 3, of_setup(rows), lambda plain, found: found == 3 * plain),
    Row("rollout.overlong_prompts", "drop", dropped, {"modsum": 1},
        MINE | {"tasks.modsum.heldout_share": 0.0, "rollout.max_prompt_length": 3}),
    Row("rollout.temperature", 0.5, sampling("policy_temperature"), 0.5),
    Row("rollout.temperature", 0.5, surrogate(part="temperature"), 0.5),
    Row("rollout.temperature", 0.5, played(lambda _, requests: [r.temperature for r in requests], "a"), [0.5, 0.5]),
    Row("rollout.top_k", 3, sampling("top_k"), 3, RECOMPUTE | TRUNCATED),
    Row("rollout.top_p", 0.5, sampling("top_p"), 0.5, RECOMPUTE | TRUNCATED),
    Row("rollout.batch_size", 16, sampling("batch_size"), 16),
    Row("rollout.slots", 8, sampling("slots"), 8),
    Row("rollout.chunk", 4, sampling("chunk"), 4),
    Row("rollout.prefill_chunk", 8, sampling("prefill_chunk"), 8),
    Row("rollout.in_flight", "keep", in_flight, "keep", {"rollout.slots": 8, "training.max_lag": 1}),
    Row("rollout.patience", 5, patience, 5),
    Row("rollout.devices", 4, of_setup(lambda s: [d.id for d in s.sampling_mesh.devices.flat]), [4, 5, 6, 7]),
    Row("rollout.devices", 4, of_setup(lambda s: [d.id for d in s.mesh.devices.flat]), [0, 1, 2, 3]),
    Row("verifier.workers", 3, pool_of, (3, 10.0, 2048 << 20)),
    Row("verifier.timeout", 3.0, pool_of, (2, 3.0, 2048 << 20)),
    Row("verifier.memory_mib", 512, pool_of, (2, 10.0, 512 << 20)),
    Row("algorithm.preset", "gspo", lambda c: from_dict({"algorithm": {"preset": c.algorithm.preset}}).algorithm.ratio,
        "sequence"),
    # Advantages of four samples in two groups.
    Row("algorithm.baseline", "none", signal_of("advantages"), [3, 1, 6, 5], UNSCALED),
    Row("algorithm.scale", "batch_std", signal_of("advantages"),
        [x / np.std([3, 1, 6, 5]) for x in (1, -1, 0.5, -0.5)]),
    Row("algorithm.ddof", 1, signal_of("advantages"), [x / 2**0.5 for x in (1, -1, 1, -1)]),
    Row("algorithm.scale_epsilon", 0.5, signal_of("advantages"), [1 / 1.5, -1 / 1.5, 0.5, -0.5]),
    Row("algorithm.pass_k", 2, signal_of("advantages", binary=True), [0, 0, 0, 0],
        {"algorithm.baseline": "pass_at_k", "algorithm.pass_k": 1} | UNSCALED | SCORE),
    Row("algorithm.length_reward", "exact", signal_of("advantages"), [1, 0, 6, 0], UNCHANGED | TARGET),
    Row("algorithm.length_coef", 0.5, signal_of("advantages"), [2, 0.5, 6, 2.5], UNCHANGED | TARGET | EXACT),
    Row("algorithm.length_target", 5, signal_of("advantages"), [0, 1, 5, 1], UNCHANGED | EXACT),
    Row("algorithm.length_buffer", 4, signal_of("advantages"), [3, 0.25, 5.5, 4], UNCHANGED | SOFT),
    Row("algorithm.overlong", "mask", signal_of("trained"), [True, True, True, False]),
    Row("algorithm.keep", "mixed_groups", signal_of("kept", binary=True), [True, True, False, False]),
    # The loss of one action.
    Row("algorithm.ratio", "none", surrogate(), 1.0, NO_KL | {"algorithm.clip": "none"}),
    Row("algorithm.clip", "none", surrogate(ratio=3), -3.0, NO_KL),
    Row("algorithm.clip_dual", 5.0, surrogate(ratio=9, advantage=-1), 5.0, NO_KL | {"algorithm.clip": "dual"}),
    Row("algorithm.tau_positive", 2.0, surrogate(ratio=3), -2 / (1 + np.exp(-4)), NO_KL | SAPO),
    Row("algorithm.tau_negative", 2.0, surrogate(ratio=3, advantage=-1), 2 / (1 + np.exp(-4)), NO_KL | SAPO),
    Row("algorithm.mirror_tau", 0.5, surrogate(ratio=3), 1 - np.log(3) + 0.25 * np.log(3) ** 2,
        NO_KL | {"algorithm.clip": "mirror"}),
    Row("algorithm.clip_high", 0.5, surrogate(ratio=3), -1.5, NO_KL),
    Row("algorithm.clip_low", 0.4, surrogate(ratio=0.1, advantage=-1), 0.6, NO_KL),
    Row("algorithm.aggregation", "constant", surrogate(part="weight"), 2 * 6),
    Row("algorithm.aggregation_tokens", 5, surrogate(part="weight"), 2 * 5, {"algorithm.aggregation": "constant"}),
    Row("algorithm.proximal", "recompute", surrogate(ratio=1.1, proximal=1.5), -1.1, NO_KL),
    Row("algorithm.correction", "token_tis", surrogate(ratio=1.1, proximal=1.5), -1.1 * 1.5, NO_KL | RECOMPUTE),
    Row("algorithm.correction", "token_tis", sampling("filtered_logprobs"), True, RECOMPUTE),
    Row("algorithm.importance_cap", 3.0, surrogate(proximal=9), -3.0, NO_KL | RECOMPUTE | TRUNCATED),
    Row("algorithm.importance_floor", 0.5, surrogate(proximal=0.25), 0.0,
        NO_KL | RECOMPUTE | {"algorithm.correction": "token_mis"}),
    Row("algorithm.entropy", "top_share", of_setup(lambda s: "uncertain" in make_loss(s).needs), True),
    Row("algorithm.entropy_coef", 0.5, surrogate(), -1 - 0.5 * 0.25, NO_KL | COEF | {"algorithm.entropy": "bonus"}),
    Row("algorithm.entropy_target", 0.4, followed("entropy_coef"), 0.505, BY_ENTROPY),
    Row("algorithm.entropy_delta", 0.1, followed("entropy_coef"), 0.4, BY_ENTROPY),
    Row("algorithm.entropy_share", 0.5, selected, [[1, 1, 0, 0]], COEF | {"algorithm.entropy": "kl_cov"}),
    Row("algorithm.cov_low", 0.5, selected, [[1, 1, 0, 0]], CLIP_COV),
    Row("algorithm.cov_high", 2.0, selected, [[0, 0, 0, 0]], CLIP_COV),
    Row("algorithm.kl", "k2", surrogate(reference=2), -1 + 0.01 * np.log(2) ** 2 / 2),
    Row("algorithm.kl_coef", 0.5, surrogate(reference=2), -1 + 0.5 * (1 - np.log(2))),
    Row("algorithm.reference", "none", of_setup(lambda s: "reference" in make_loss(s).needs), False, NO_KL),
    # Optimizers and devices.
    # A critic, rewards of tokens, and a reference policy that moves.
    Row("algorithm.baseline", "value", credit_of("returns"), [1, 1, 0], {"algorithm.scale": "none"}),
    Row("algorithm.gamma", 0.25, credit_of("advantages"), [0.25, 1, 0], TO_GO),
    Row("algorithm.gae_lambda", 0.5, credit_of("advantages"), [0.25, 0.5, -0.5], CRITIC),
    Row("algorithm.gae_length", 0.625, credit_of("advantages"), [0.1, 0.5, -0.5], CRITIC),
    Row("algorithm.return_lambda", 0.5, credit_of("returns"), [0.75, 1, 0], CRITIC),
    Row("algorithm.demonstrations", 1, of_setup(lambda s: "demonstrated" in make_loss(s).needs), True, NO_KL),
    Row("algorithm.demonstration_shaping", 0.3, surrogate(shown=True), -np.exp(-1) / (np.exp(-1) + 0.3),
        NO_KL | {"algorithm.demonstrations": 1}),
    Row("algorithm.max_draws", 3, further(), 2, {"algorithm.keep": "mixed_groups"}),
    Row("algorithm.state_samples", 5, further("states"), (3, 5), VINE | {"algorithm.step_delimiter": "#"}),
    Row("algorithm.max_states", 2, further("states"), (2, 9), VINE | {"algorithm.step_length": 1}),
    Row("algorithm.step_delimiter", "#", further("states"), (3, 9), VINE),
    Row("algorithm.step_length", 1, further("states"), (5, 9), VINE),
    # Curricula, and what else the history of a run is for.
    Row("curriculum.by", "problem", chosen(indices, of_0=1, of_1=1), [2, 3], OWN | RARE | HALF),
    Row("curriculum.sampling", "towards_half", chosen(indices, of_0=1, of_1=1), [2, 3], BY_PROBLEM | RARE),
    Row("curriculum.power", 4.0, chosen(zeros, of_0=1), more, BY_PROBLEM | HALF | ONCE),
    Row("curriculum.floor", 1.0, chosen(zeros, of_0=1), more, BY_PROBLEM | HALF | ONCE),
    Row("curriculum.low", 0.5, chosen(indices, of_0=0.25), [1, 2, 3], BY_PROBLEM | {"curriculum.floor": 0.0}),
    Row("curriculum.high", 0.5, chosen(indices, of_0=0.75), [1, 2, 3], BY_PROBLEM | {"curriculum.floor": 0.0}),
    Row("curriculum.tries", 1, chosen(indices, of_0=0.25), [0, 1, 2, 3],
        BY_PROBLEM | {"curriculum.floor": 0.0, "curriculum.low": 0.5}),
    Row("curriculum.decay", 0.5, remembered(lambda h: h.rates["modsum"].right, modsum=0.5), 0.5 * 4 + 3,
        {"algorithm.replay": 1}),
    Row("curriculum.threshold", 0.25, remembered(lambda h: h.stage, modsum=0.5), 1,
        {"tasks.other": {"name": "modsum", "stage": 1}}),
    Row("tasks.modsum.stage", 1, chosen(lambda places: {name for name, _ in places}), {"other"}, OTHER_TASK),
    Row("tasks.modsum.steps", (21, 99), chosen(lambda places: {name for name, _ in places}), {"other"}, OTHER_TASK),
    Row("tasks.modsum.level", "question", task_of(lambda t: [t.example("train", i).level for i in range(4)]), [*"abcd"],
        OWN),
    Row("sft.tasks", {"other": 1.0}, of_setup(lambda s: [t.name for t in training_mixture(s, "sft").tasks]), ["other"],
        OTHER_TASK),
    Row("algorithm.replay", 2, chosen(len), 6 * 20),
    Row("algorithm.replay_size", 1, remembered(lambda h: [x.step for x in h.replay]), [1], {"algorithm.replay": 1}),
    Row("algorithm.replay_order", "deviation", remembered(lambda h: [x.step for x in h.replay]), [1, 3],
        {"algorithm.replay": 1}),
    Row("algorithm.tracker_prior", 4.0, lambda c: prior(c).wrong, 2.0),
    Row("algorithm.tracker_drift", 0.1, lambda c: tracker_decay(c.algorithm, 0.01), 2**-0.1),
    Row("algorithm.tracker_low", 0.9, lambda c: tracker_decay(c.algorithm, 1.0), 0.9),
    Row("algorithm.tracker_high", 0.99, lambda c: tracker_decay(c.algorithm, 0.0), 0.99),
    Row("training.offload_reference", True, of_setup(lambda s: memory_of_run(s).phases["rollout"].get("reference")),
        None),
    Row("critic.clip", 0.4, squared_error, 0.18, CRITIC),
    Row("critic.init", "fresh", of_setup(critics_embedding), lambda a, b: not a.any() and b.any(), CRITIC),
    Row("critic.warmup_steps", 1, updates("policy"), 1, CRITIC),
    Row("critic.optimizer.microbatches", 5, refusal, refused_with("config.critic.optimizer.microbatches = 5"), CRITIC),
    Row("algorithm.epochs", 3, updates("policy"), 6),
    Row("algorithm.kl_reward_coef", 2.0, credit_of("advantages"), [1 - 2 * np.log(2), 1, 0], TO_GO),
    Row("algorithm.kl_reward_target", 1.0, followed("kl_coef", 3.0), 1 + 0.2 * 32 / 10_000, ADAPTIVE),
    Row("algorithm.kl_reward_horizon", 320, followed("kl_coef", 30.0), 1.02, ADAPTIVE),
    Row("algorithm.reference_every", 2, followed("reference"), 1.0, {"algorithm.reference_every": 3}),
    Row("algorithm.reference_share", 0.25, followed("reference"), 0.25, MOVES),
    *optimizer_rows("critic"),
    Row("optimizer.microbatches", 2, microbatches, 2),
    *optimizer_rows("rl"),
    *optimizer_rows("sft"),
    *optimizer_rows("preferences"),
    *keys_of_supervised.ROWS,
    Row("mesh.data", 4, refusal, refused_with("data=4", " 8 ")),
    Row("mesh.fsdp", 2, on_one_device("embed"), (258, 8)),
    Row("mesh.rollout_tensor", 2, of_setup(lambda s: dict(s.sampling_mesh.shape)),
        {"data": 4, "fsdp": 1, "context": 1, "tensor": 2}),
    Row("mesh.context", 2, of_setup(lambda s: dict(s.mesh.shape)), {"data": 4, "fsdp": 1, "context": 2, "tensor": 1}),
    Row("mesh.tensor", 2, on_one_device("layers", "attention", "q"), (2, 16, 1, 8)),
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with what rows name."""
    folder = tmp_path_factory.mktemp("files")
    rows = [
        {"prompt": p, "reference": r, "question": q, "gold": "9"}
        for (p, r), q in zip(MINE_NUMBERS, "abcd", strict=True)
    ]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "heldout.jsonl").write_text(json.dumps({"prompt": "5=", "reference": "5"}))
    dated = "{{ strftime_now('%d %b') }} {{ messages[0].content }}"
    tokenizer("bytes", begins="", template=dated).save_pretrained(folder / "dated")
    write_model(folder / "model", tokenizer("bytes"), SHAPE)
    write_supervised(folder)
    return folder


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_a_key_changes_what_it_should(row, files):
    plain = with_keys(PLAIN, row.beside, files)
    config = with_keys(plain, {row.key: row.value}, files)
    message = wrong(row, config, row.seen(plain), row.seen(config))
    assert not message, message


@pytest.mark.parametrize("values", ARCHITECTURES, ids=lambda values: values["norm_placement"])
def test_all_keys_of_an_architecture_change_its_logits_as_those_of_a_decoder_in_float64(values):
    config = with_keys(PLAIN, {f"policy.{key}": value for key, value in values.items()})
    found = logits(config)
    assert same(found, logits_by_hand(config))
    for key in values:
        plain = getattr(PLAIN.policy, key)
        assert not same(found, logits_by_hand(with_keys(config, {f"policy.{key}": plain}))), key


def test_every_key_of_the_config_has_a_row():
    keys, of_policy = leaves(to_dict(Config())), {f"policy.{key}" for key in ARCHITECTURES[0]}
    assert {row.key for row in (*ROWS, *test_keys_of_runs.ROWS)} | of_policy == set(keys)
    assert from_dict(to_dict(PLAIN)) == PLAIN
