"""Language models as judges: functions from samples to verdicts, whose answers are recorded."""
