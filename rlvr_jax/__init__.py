"""RLVR in JAX: reinforcement learning with verifiable rewards. The rooms are described in docs/architecture.md."""
