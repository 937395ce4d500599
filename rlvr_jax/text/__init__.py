"""Text that passes between prompts, policies and verifiers."""
