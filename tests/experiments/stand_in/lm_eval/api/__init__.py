"""See `lm_eval`."""
