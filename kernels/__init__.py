"""Attention and other kernels, each with a plain-JAX counterpart. Installed as `rlvr_jax.kernels`."""
