"""Submission of the answer, which ends the episode."""

from rlvr_jax.tools.tool import Tool


def tool(answer: str = "{}") -> Tool:
    """Ends the episode with an answer: `submit`.

    Args:
      answer: text with the place {}, for the answer in the form that the task's verifier reads, such as `#### {}`.

    Raises:
      ValueError: there is no such place.
    """
    if "{}" not in answer:
        raise ValueError(f"submit: answer needs the place {{}}, and is {answer!r}")
    parameters = {
        "type": "object",
        "properties": {"answer": {"type": "string", "description": "The final answer alone."}},
        "required": ["answer"],
    }
    return Tool("submit", "Submits the final answer and ends the task.", parameters, ends=True, answer=answer)
