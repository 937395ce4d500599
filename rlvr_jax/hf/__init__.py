"""Hugging Face checkpoints: found, read, written; and files of llama.cpp, which become such."""
