"""A collector whose episodes say what they are told to."""

from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.episode import Group
from rlvr_jax.rollout.streams import stream_of
from rlvr_jax.text.tokenizers import encode
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import episode


class Scripted(Collector):
    """A collector whose episodes say `said(name, group, member)` and are judged by `score(name, group, member)`."""

    def __init__(self, tokenizer, score, said=lambda *_: "#1"):
        self.tokenizer, self.score, self.said, self.calls = tokenizer, score, said, {}

    def start(self, name, examples, group_size, key, temperature, begun=None):
        self.calls[name] = examples, group_size, stream_of(key).tolist(), temperature, begun

    def started(self):
        return list(self.calls)

    def take(self, name):
        examples, size, *_ = self.calls[name]
        groups = []
        for g, example in enumerate(examples):
            texts = [self.said(name, g, i) for i in range(size)]
            episodes = tuple(episode(encode(self.tokenizer, text), text, example=example) for text in texts)
            scores = [self.score(name, g, i) for i in range(size)]
            verdicts = [Verdict(0.0, error="it died") if score is None else Verdict(score) for score in scores]
            groups.append(Group(example, episodes, tuple(verdicts)))
        return groups
