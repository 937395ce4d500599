"""The tasks that there are."""


class TaskManager:
    def __init__(self, include_path):
        self.folder = include_path

    def match_tasks(self, names):
        return [name for name in names if name in ("gsm8k", "arc_easy")]
