"""What the processes of commands have in common; imported once in the process from which they are forked.

To import it is most of what a short command takes. JAX is not started. Pictures are made and not rendered, and few
prompts are checked.
"""

import gc

import tensorboardX.proto.event_pb2  # noqa: F401
from matplotlib.backends import backend_agg, backend_svg  # noqa: F401

from rlvr_jax.reporting import curves, suite_page
from rlvr_jax.sweeps import pictures
from rlvr_jax.text.tokenizers import character_tokenizer
from rlvr_jax.training import loop, problems, sft  # noqa: F401
from tests.curves import NO_CURVES
from tests.experiments import calls, runs  # noqa: F401

character_tokenizer("0")  # imports transformers
vars(curves).update(NO_CURVES)
suite_page.svg_of = pictures.svg_of = lambda _: b"<svg/>"
problems._CHECKED_PROMPTS = 16
gc.freeze()
gc.set_threshold(50_000, 20, 20)  # as in conftest.py
