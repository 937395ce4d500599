"""Published architectures of open models, from their config.json on the Hugging Face hub.

With `config.pretrained` the checkpoint determines the architecture; these are for runs with random weights:
`--config.pretrained= --config.tokenizer=bytes`, shrunk for a small machine by `--config.shrink=64`.
"""

_QWEN2_5 = {"vocab_size": 151_936, "head_dim": 128, "rope_theta": 1e6, "norm_eps": 1e-6, "qkv_bias": True}
_LLAMA3 = {"num_kv_heads": 8, "rope_theta": 5e5, "norm_eps": 1e-5}
_LLAMA3_SCALING = {"type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_length": 8192}

QWEN3_1P7B = {
    "vocab_size": 151_936,
    "num_layers": 28,
    "width": 2048,
    "num_heads": 16,
    "num_kv_heads": 8,
    "head_dim": 128,
    "mlp_width": 6144,
    "rope_theta": 1e6,
    "norm_eps": 1e-6,
    "qk_norm": "head",
    "tie_embeddings": True,
}
QWEN2_5_1P5B = _QWEN2_5 | {"num_layers": 28, "width": 1536, "num_heads": 12, "num_kv_heads": 2, "mlp_width": 8960}
QWEN2_5_3B = _QWEN2_5 | {"num_layers": 36, "width": 2048, "num_heads": 16, "num_kv_heads": 2, "mlp_width": 11_008}
LLAMA3_2_1B = _LLAMA3 | {
    "vocab_size": 128_256,
    "num_layers": 16,
    "width": 2048,
    "num_heads": 32,
    "head_dim": 64,
    "mlp_width": 8192,
    "rope_scaling": _LLAMA3_SCALING | {"factor": 32.0},
}
LLAMA3_1_8B = _LLAMA3 | {
    "vocab_size": 128_256,
    "num_layers": 32,
    "width": 4096,
    "num_heads": 32,
    "head_dim": 128,
    "mlp_width": 14_336,
    "rope_scaling": _LLAMA3_SCALING | {"factor": 8.0},
    "tie_embeddings": False,
}
TULU3_8B = LLAMA3_1_8B | {"vocab_size": 128_264}
QWEN3_32B = QWEN3_1P7B | {
    "num_layers": 64,
    "width": 5120,
    "num_heads": 64,
    "mlp_width": 25_600,
    "tie_embeddings": False,
}
LLAMA3_1_70B = LLAMA3_1_8B | {"num_layers": 80, "width": 8192, "num_heads": 64, "mlp_width": 28_672}

GEMMA3_1B = {
    "vocab_size": 262_144,
    "num_layers": 26,
    "width": 1152,
    "num_heads": 4,
    "num_kv_heads": 1,
    "head_dim": 256,
    "mlp_width": 6912,
    "rope_theta": 1e6,
    "rope_theta_unscaled": 1e4,
    "rope_pattern": ("unscaled",) * 5 + ("scaled",),
    "window_pattern": (512,) * 5 + (0,),
    "norm_placement": "both",
    "norm_offset": 1.0,
    "norm_eps": 1e-6,
    "qk_norm": "head",
    "activation": "gelu_tanh",
    "scale_embeddings": True,
    "tie_embeddings": True,
}


def use(config, pretrained: str, shape: dict) -> None:
    """A pretrained model, bfloat16 products on float32 parameters, with what large models need in memory."""
    config.pretrained = pretrained
    config.prompt.format = "chat"
    config.policy.update(shape)
    config.policy.dtype = "bfloat16"
    config.policy.remat = "full"
    config.policy.head_chunk = 2048
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.rollout.overlong_prompts = "drop"


def use_gsm8k(config, max_response_length: int) -> None:
    """GRPO on GSM8K: 64 problems x 8 samples a step, 200 steps, evaluated on all 1,319 held-out problems."""
    config.policy.max_length = 512 + max_response_length
    config.rollout.prompts = 64
    config.rollout.max_prompt_length = 512
    config.rollout.max_response_length = max_response_length
    config.algorithm.kl_coef = 1e-3
    config.algorithm.reference = "initial"
    config.optimizer.learning_rate = 1e-6
    config.optimizer.warmup_steps = 10
    config.optimizer.microbatches = 16
    config.training.num_steps = 200
    config.evaluation.every = 20
    config.evaluation.problems = 1319


def use_smollm2_135m(config) -> None:
    """SmolLM2-135M-Instruct at a size for 2 CPU cores: 8 problems x 8 samples of at most 24 tokens a step.

    Supervised learning, of its own right samples for example, takes 24 updates of 16 chats.
    """
    config.pretrained = "HuggingFaceTB/SmolLM2-135M-Instruct"
    config.prompt.format = "chat"
    config.rollout.prompts = 8
    config.rollout.max_response_length = 24
    config.optimizer.learning_rate = 2e-5
    config.training.packing = "prefix_tree"
    config.training.packing_multiple = 64
    config.evaluation.every = 8
    config.evaluation.problems = 128
    config.evaluation.pass_problems = 0
    config.sft.num_steps = 24
    config.sft.save_every = 24
    config.sft.batch_size = 16
    config.sft.updates_per_call = 4
    config.sft.optimizer.learning_rate = 2e-5
    config.sft.optimizer.warmup_steps = 0
