"""Hugging Face checkpoints: finding, reading and writing them, and converting GGUF files of llama.cpp."""
