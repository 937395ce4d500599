"""Environments with the methods of those of the package `verifiers`: a number to guess."""

ROWS = [
    {"prompt": [{"role": "user", "content": f"1 to {n}?"}], "answer": str(n - 1), "info": {"most": n}} for n in (3, 9)
]


class Rubric:
    async def score_rollout(self, state, score_sem):
        async with score_sem:
            said = [message for message in state["completion"] if message["role"] == "assistant"]
            state["reward"] = float(said[-1]["content"] == state["answer"])
            state["metrics"] = {"num_turns": len(state["trajectory"])}


class Guessing:
    """As in version 0.1.9."""

    rubric = Rubric()

    def get_dataset(self):
        return ROWS

    def get_eval_dataset(self):
        return ROWS[:1]

    async def setup_state(self, state):
        state["hints"] = 0
        return state

    async def is_completed(self, state):
        return state["completion"][-1]["content"] == state["answer"] or len(state["trajectory"]) == 3

    async def env_response(self, messages, state, **kwargs):
        del kwargs
        state["hints"] += 1
        low = int(messages[-1]["content"] or 0) < int(state["answer"])
        return [{"role": "user", "content": "+" if low else "-"}]


class Plain:
    """As in older versions, and not asynchronous: questions, texts, pairs, a rubric that returns a number."""

    class rubric:  # noqa: N801
        @staticmethod
        def score(state):
            return -1 if state["turn"] > 2 else 0.5

    def get_dataset(self):
        return [{"question": "1 to 3?", "answer": "2"}]

    def is_completed(self, messages, state):
        return messages[-1]["content"] == state["answer"]

    def env_response(self, messages, state):
        del messages
        if state["turn"] == 3:
            state["final_env_response"] = "over"
        return "No.", state


class Failing(Guessing):
    async def env_response(self, messages, state):
        del messages
        state["error"] = RuntimeError("no connection")
        return []


def guessing(kind="Guessing", **changes):
    """An environment of this module, with other attributes of some names; functions are named by what they return."""
    made = globals()[kind]() if kind != "Nothing" else object()
    for name, value in changes.items():
        setattr(made, name, lambda *_, value=value: value)
    return made


def broken():
    raise RuntimeError("no licence")
