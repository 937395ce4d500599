"""The progress bar fits a terminal and is silent elsewhere; TensorBoard events hold every number."""

import io
import struct

import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from rlvr_jax.reporting import progress, tensorboard


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_bar_shows_reward_time_left_and_the_speed_of_the_last_step_that_sampled():
    out = Terminal()
    with progress.progress(10, 0, "training", file=out) as show:
        show({"step": 0, "eval/greedy_accuracy": 0.25})
        show({"step": 4, "train/reward": 0.5, "time/rollout_tokens_per_second": 123456.0})
        show({"step": 5, "train/reward": 0.75, "train/accuracy": 0.5, "time/rollout_tokens_per_second": 0.0})
    shown = [line for line in out.getvalue().split("\r") if "5/10" in line]
    for part in ("training", "reward 0.75", "held-out 0.25", "123k tok/s", "<"):
        assert part in shown[-1]


@pytest.fixture
def now(monkeypatch):
    """The seconds of the clock, for a test to set."""
    seconds = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


def test_without_a_terminal_there_is_a_plain_line_every_ten_seconds_and_at_both_ends(now):
    out = io.StringIO()
    with progress.progress(44, 40, "training", file=out) as show:
        for step, seconds in ((41, 4), (42, 8), (43, 15), (44, 16)):
            now[0] = 100.0 + seconds
            held_out = {"eval/greedy_accuracy": 0.125} if step == 42 else {}
            show({"step": step, "train/reward": step / 50, "train/accuracy": 0.5} | held_out)
    assert out.getvalue().splitlines() == [
        "resumed from the checkpoint of step 40; training 40/44: compiling, the first step is slow",
        "training 41/44, reward 0.82, accuracy 0.50, 00:04 elapsed",
        "training 43/44, reward 0.86, accuracy 0.50, held-out 0.12, 00:15 elapsed, 00:05 left",
        "training 44/44, reward 0.88, accuracy 0.50, held-out 0.12, 00:16 elapsed",
    ]


def test_slow_steps_have_a_line_each(now):
    out = io.StringIO()
    with progress.progress(9, 0, "warm start", file=out) as show:
        for step in range(4):
            show({"step": step, "sft/loss": 1.5})
            now[0] += 11
    _, *lines = out.getvalue().splitlines()
    assert lines[0] == "warm start 0/9, loss 1.500, 00:00 elapsed"
    assert lines[3] == "warm start 3/9, loss 1.500, 00:33 elapsed, 01:06 left"


def events_in(path):
    """The events of a file, with the checksums of their records verified."""
    data, events = path.read_bytes(), []
    while data:
        (length,), (head,) = struct.unpack("<Q", data[:8]), struct.unpack("<I", data[8:12])
        content, (tail,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
        assert head == masked_crc32c(data[:8])
        assert tail == masked_crc32c(content)
        events.append(event_pb2.Event.FromString(content))
        data = data[16 + length :]
    return events


def test_events_hold_every_number_under_its_own_name(tmp_path):
    writer = tensorboard.open_writer(tmp_path)
    tensorboard.write(writer, {"step": 3, "eval/pass@8": 0.5, "train/loss": float("nan"), "note": "text"})
    tensorboard.close(writer)
    (path,) = (tmp_path / "tensorboard").iterdir()
    version, event = events_in(path)
    assert version.file_version == "brain.Event:2"
    assert event.step == 3
    values = {value.tag: value.simple_value for value in event.summary.value}
    assert values["eval/pass@8"] == 0.5
    assert values["train/loss"] != values["train/loss"]
    assert values.keys() == {"eval/pass@8", "train/loss"}


def test_a_resumed_run_hides_the_steps_it_makes_again(tmp_path):
    writer = tensorboard.open_writer(tmp_path, purge_step=7)
    tensorboard.close(writer)
    (path,) = (tmp_path / "tensorboard").iterdir()
    _, start = events_in(path)
    assert start.step == 7
    assert start.session_log.status == event_pb2.SessionLog.START


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    writer = tensorboard.open_writer(tmp_path)
    tensorboard.close(writer)
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
        broken = tensorboard.Writer(writer.path, full)
        with pytest.raises(OSError, match="cannot write events"):
            tensorboard.write(broken, {"step": 1, "x": 1.0})
