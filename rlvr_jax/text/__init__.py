"""Text: tokenizers, chat templates, thinking tags and answer formats."""
