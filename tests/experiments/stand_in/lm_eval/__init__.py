"""Stands in for lm-eval, which is not installed: the parts that `rlvr lm_eval` uses, with three problems of its own."""

from lm_eval.api.model import LM, Instance


def simple_evaluate(model, tasks, task_manager, limit, num_fewshot, apply_chat_template):
    assert isinstance(model, LM)
    assert not num_fewshot
    assert not apply_chat_template
    found = model.loglikelihood([Instance(("11=", "2")), Instance(("11=", "3"))])[:limit]
    (rolling,) = model.loglikelihood_rolling([Instance(("1234567",))])
    (said,) = model.generate_until([Instance(("11=", {"until": ["0"], "max_gen_toks": 4}))])
    numbers = {"logprob,none": found[0][0], "logprob_stderr,none": 0.5, "rolling,none": rolling, "alias": said}
    return {"results": dict.fromkeys(tasks, numbers), "versions": {}, "folder": task_manager.folder}
