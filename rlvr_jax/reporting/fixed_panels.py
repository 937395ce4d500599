"""The panels with the same lines in every run."""

from rlvr_jax.reporting.panel import HELD_OUT, TRAIN, Panel, Series

FIXED = (
    Panel(
        "Held-out preferences",
        "share right",
        (
            Series("preferences/accuracy", "train", TRAIN),
            Series("eval/preference_accuracy", "held-out", HELD_OUT, 2.2),
        ),
        "Share of preferences in which the chosen completion gets the higher reward, on held-out prompts with its 95 % "
        "interval.",
        scale="share",
        wide=True,
    ),
    Panel(
        "Preference loss",
        "loss",
        (Series("preferences/loss", "loss", TRAIN),),
        "Mean loss of the trained preferences.",
    ),
    Panel(
        "Margin of preferences",
        "reward",
        (
            Series("preferences/margin", "train", TRAIN),
            Series("eval/preference_margin", "held-out", HELD_OUT, 2.2),
        ),
        "Mean reward of the chosen completion less that of the rejected one. Training pairs that part further and "
        "further while held-out ones do not are learned by heart.",
    ),
    Panel(
        "Rewards of completions",
        "reward",
        (
            Series("preferences/chosen_reward", "chosen", TRAIN),
            Series("preferences/rejected_reward", "rejected", HELD_OUT),
            Series("preferences/good_reward", "good", TRAIN),
            Series("preferences/bad_reward", "bad", HELD_OUT),
        ),
        "Mean reward that the model gives trained completions: of a reward model its output, of a policy beta times "
        "the log-ratio to the reference policy (or to none). Both may fall while their difference grows.",
    ),
    Panel(
        "Log-probs of completions",
        "nats",
        (
            Series("preferences/chosen_logprob", "chosen", TRAIN),
            Series("preferences/rejected_logprob", "rejected", HELD_OUT),
            Series("preferences/good_logprob", "good", TRAIN),
            Series("preferences/bad_logprob", "bad", HELD_OUT),
        ),
        "Mean log-probability of a whole completion under the policy. If that of chosen ones falls far, the policy "
        "moves to answers that are in no pair.",
    ),
    Panel(
        "Response length",
        "tokens",
        (
            Series("train/response_length", "train", TRAIN),
            Series("eval/response_length", "held-out (greedy)", HELD_OUT),
            Series("train/response_length_right", "right", "#009E73", 1.0),
            Series("train/response_length_wrong", "wrong", "#CC79A7", 1.0),
        ),
        "Mean length of a completion, also of right and of wrong ones apart. A rise along with accuracy is thinking "
        "aloud; a rise without it is rambling.",
    ),
    Panel(
        "Turns",
        "turns per episode",
        (
            Series("train/turns", "turns", TRAIN, dull=1.0),
            Series("train/sequences", "context windows", "#009E73", dull=1.0),
        ),
        "Mean number of the policy's turns in an episode, and of its context windows, those of its questions to itself "
        "included.",
    ),
    Panel(
        "Lag of the samples",
        "steps",
        (Series("train/lag", "mean", TRAIN, dull=0.0), Series("train/max_lag", "largest", "#009E73", dull=0.0)),
        "Lag, in steps, of the policy that sampled a token behind the one trained on it.",
    ),
    Panel(
        "Truncated and clipped",
        "share",
        (
            Series("train/truncated", "truncated", TRAIN),
            Series("train/clip_fraction", "ratio clipped", "#009E73"),
        ),
        "Share of completions that ran out of tokens (they rarely earn a reward), and share of tokens whose "
        "gradient the clipped ratio removed.",
        scale="share",
    ),
    Panel(
        "Entropy",
        "nats per token",
        (
            Series("train/entropy", "entropy", TRAIN),
            Series("train/entropy_positive", "A > 0", "#009E73", 1.0),
            Series("train/entropy_negative", "A < 0", "#D55E00", 1.0),
        ),
        "Mean entropy of the policy's next-token distribution, over all tokens and by the sign of their advantage. "
        "Falling to 0 means that exploration has ended.",
    ),
    Panel(
        "Surprisal of right and wrong samples",
        "nats per token",
        (
            Series("train/surprisal_right", "right", "#009E73"),
            Series("train/surprisal_wrong", "wrong", "#CC79A7"),
        ),
        "Mean of -log p over the tokens of samples, an estimate of the policy's entropy where it is right and where it "
        "is wrong. Wrong samples as sure as right ones are mistakes that more samples will not mend.",
    ),
    Panel(
        "KL to the reference policy",
        "nats per token",
        (Series("train/kl", "KL", TRAIN),),
        "How far the policy has moved from where it started. A sudden rise often comes with a broken policy.",
    ),
    Panel(
        "Move of an update",
        "nats per token",
        (Series("train/policy_kl", "KL", TRAIN, dull=0.0),),
        "KL divergence from the policy that the ratio is relative to, to the one being trained. It is 0 with one "
        "update in a step; large values mean that the samples are stale, or the learning rate is high.",
    ),
    Panel(
        "Effective samples",
        "share",
        (
            Series("train/effective_actions", "tokens", TRAIN),
            Series("train/effective_samples", "whole samples", "#009E73"),
            Series("train/importance_masked", "tokens of weight 0", "#D55E00"),
        ),
        "How many equally weighted tokens, and whole samples, the importance weights are worth before they are "
        "truncated. Near 1 they are as good as on-policy; near 0 a few decide. And the tokens that are masked.",
        scale="share",
    ),
    Panel(
        "KL of an episode",
        "nats",
        (Series("train/kl_episode", "KL", TRAIN),),
        "How far the policy that sampled had moved from the reference policy, summed over an episode's tokens. The "
        "reward is reduced by this, times a coefficient.",
    ),
    Panel(
        "Value of the critic",
        "reward",
        (
            Series("critic/value", "value", "#E69F00"),
            Series("critic/return", "return", TRAIN),
        ),
        "Mean of what the critic expected of the rest of an episode, and of what came. A lasting gap is a critic "
        "that lags behind or whose values are clipped.",
    ),
    Panel(
        "Explained variance",
        "share",
        (Series("critic/explained_variance", "explained", "#E69F00"),),
        "Share of the returns' variance that the critic's values explain: 1 is perfect, 0 no better than a "
        "constant; below 0 the advantages are noisier than without a critic.",
    ),
    Panel(
        "Loss of the critic",
        "squared reward",
        (Series("critic/loss", "loss", "#E69F00"),),
        "Half of the mean squared difference of value and return, after each update.",
    ),
    Panel(
        "Gradient norm",
        "global norm",
        tuple(Series(f"{run}/grad_norm", "before clipping", TRAIN) for run in ("train", "sft", "preferences")),
        "Global norm of the gradient before clipping. Spikes are single updates that pull hard; gaps with red "
        "marks were not finite.",
    ),
    Panel(
        "Zero-variance groups",
        "share of groups",
        (Series("train/zero_signal_groups", "share", TRAIN),),
        "Groups whose samples all earned the same reward, so that their advantages are 0. Near 1, a step teaches "
        "nothing: the problems are too easy or too hard.",
        scale="share",
    ),
    Panel(
        "Stage of the curriculum",
        "stage",
        (Series("curriculum/stage", "open", TRAIN),),
        "Highest stage of tasks that is open. It rises when all tasks of the stage before are solved often enough.",
    ),
    Panel(
        "Time of a step",
        "seconds",
        (
            Series("time/rollout", "sampling", "#56B4E9"),
            Series("time/verify", "verification", "#E69F00"),
            Series("time/train", "training", "#0072B2"),
            Series("time/layout", "move of parameters", "#CC79A7"),
            Series("time/evaluate", "evaluation", "#c3c7ce"),
        ),
        "Where the seconds of each step went, stacked; parameters move to the sampler after an update. "
        "Compilation falls into the first steps.",
        kind="stack",
    ),
    Panel(
        "Tokens per second",
        "tokens/s",
        (
            Series("time/rollout_tokens_per_second", "sampling", "#56B4E9"),
            Series("time/train_tokens_per_second", "training", "#0072B2"),
            Series("time/sft_tokens_per_second", "supervised training", "#009E73"),
        ),
        "Throughput of sampling and of training, each over its own seconds.",
    ),
    Panel(
        "Log-prob gap, sampler and trainer",
        "nats",
        (Series("train/logprob_gap", "largest difference", TRAIN, reduce="max"),),
        "Largest absolute difference between the log-probability of a token in the sampler and in the trainer. It "
        "should stay at rounding error, about 1e-5 in float32; with a lag it includes what the policy has learned.",
        scale="log",
    ),
)
