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


def test_the_bar_is_silent_where_there_is_no_terminal():
    out = io.StringIO()
    with progress.bar(3, 0, "training", file=out) as bar:
        progress.show(bar, {"step": 1, "train/reward": 0.5})
    assert out.getvalue() == ""


def test_the_bar_shows_reward_accuracy_speed_and_time_left():
    out = Terminal()
    with progress.bar(10, 0, "training", file=out) as bar:
        progress.show(bar, {"step": 0, "eval/greedy_accuracy": 0.25})
        progress.show(bar, {"step": 4, "train/reward": 0.5, "rollout/tokens_per_second": 123456.0})
        progress.show(bar, {"step": 5, "train/reward": 0.75, "rollout/tokens_per_second": 123456.0})
        bar.refresh()
    last = out.getvalue().split("\r")[-1]
    for part in ("training", "5/10", "reward 0.75", "held-out 0.25", "123k tok/s", "<"):
        assert part in last


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
