"""Attention and other kernels, each beside its plain-JAX reference. Installed as `rlvr_jax.kernels`."""
