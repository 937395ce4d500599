"""What the imports of other libraries may print."""

import logging
import subprocess
import sys

from rlvr_jax.quiet import transformers


def test_no_command_says_that_pytorch_is_absent():
    program = "from rlvr_jax.hf.families import policy_config; from rlvr_jax.quiet import transformers; "
    program += "transformers().CONFIG_MAPPING; transformers().PreTrainedTokenizerFast"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_afterwards_transformers_may_say_what_it_likes():
    transformers()
    record = logging.makeLogRecord({"msg": "PyTorch was not found. Models won't be available"})
    assert logging.getLogger("transformers").filter(record)
