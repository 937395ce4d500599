"""Runs of checkpoints that can't be written, in a process of their own: no file may be larger than 1,000 bytes.

Its arguments are a folder and the moments at which the failure is noticed; it prints the error of each.
"""

import resource
import sys
from pathlib import Path

from absl import logging

from rlvr_jax.errors import CheckpointError
from rlvr_jax.training.checkpoints import complete_steps, open_manager, wait
from tests.training.test_checkpoints import bits, newest, save, state_of

logging.set_verbosity(logging.FATAL)
sys.unraisablehook = lambda _: None
states, errors = [state_of(step) for step in range(3)], []
for when in sys.argv[2:]:
    workdir = Path(sys.argv[1]) / when
    with open_manager(workdir) as manager:
        save(manager, states[0], 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with open_manager(workdir) as manager:
            save(manager, states[1], 1)
            if when == "wait":
                wait(manager)
            elif when == "save":
                save(manager, states[2], 2)
    except CheckpointError as error:
        errors.append(str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert complete_steps(workdir) == [0], complete_steps(workdir)
    step, state = newest(workdir)
    assert (step, bits(state)) == (0, bits(states[0]))
print("\n".join(errors))
