"""Validity rules between a config and the devices of its run: how batches, slots and the policy are divided."""

import operator
from collections.abc import Iterable, Iterator

from rlvr_jax.config import Config, Run, supervised_options
from rlvr_jax.errors import ConfigError
from rlvr_jax.hf.families import LENGTH
from rlvr_jax.learner.credit import has_critic
from rlvr_jax.parallel.mesh import mesh_shape
from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.rollout.memory import tensor_sizes
from rlvr_jax.supervised_rules import RUNS

Rules = Iterator[tuple[bool, str]]  # (is it wrong, message)


def check_devices(config: Config, num_devices: int, num_processes: int, run: Run | None) -> None:
    """Refuses a config that can't run on these devices; arguments and errors as of `config_rules.check`."""
    sampling = config.rollout.devices
    if sampling and num_processes > 1:
        raise ConfigError(
            f"config.rollout.devices = {sampling}: with {num_processes} processes all devices train and sample; set 0"
        )
    if sampling >= num_devices:
        raise ConfigError(f"config.rollout.devices = {sampling} of {num_devices} devices leaves none to train on")
    try:
        data, fsdp, context, tensor = mesh_shape(config.mesh, num_devices - sampling)
    except ValueError as error:
        raise ConfigError(f"config.mesh: {error}") from error
    refuse(_sampling(config, sampling or num_devices))
    if not config.pretrained:  # whose architecture is known later
        check_policy(config, config.policy, (fsdp, context, tensor), sampling or num_devices)
    refuse(_batches(config, data * fsdp, run))


def check_update(config: Config, devices: int, rows_together: int = 1, run: Run = "rl") -> None:
    """Refuses updates that can't be divided into microbatches over the devices of the mesh axes data and fsdp.

    Args:
      config: of the run.
      devices: of the mesh axes data and fsdp.
      rows_together: samples that the loss of reinforcement learning keeps in one microbatch, see
        `rlvr_jax.learner.losses.Loss`.
      run: its kind.

    Raises:
      ConfigError: with the keys and numbers.
    """
    refuse(_update(config, devices, rows_together) if run == "rl" else _batches(config, devices, run))


def check_policy(config: Config, policy: PolicyConfig, mesh: tuple[int, int, int], samplers: int) -> None:
    """Refuses a policy that can't be sharded, or whose window is too short.

    Args:
      config: of the run.
      policy: the architecture.
      mesh: sizes of the mesh axes fsdp, context and tensor that train.
      samplers: number of devices that sample.

    Raises:
      ConfigError: with the keys and numbers.
    """
    refuse(_policy(policy, *mesh))
    refuse(_sampled_policy(config, policy, samplers))
    rollout, length = config.rollout, policy.max_length or LENGTH
    if rollout.max_prompt_length + rollout.max_response_length > length:
        raise ConfigError(
            f"config.rollout.max_prompt_length + max_response_length = {rollout.max_prompt_length} + "
            f"{rollout.max_response_length} is longer than the policy's window, config.policy.max_length = {length}; "
            "raise that, or lower them"
        )


def refuse(rules: Iterable[tuple[bool, str]]) -> None:
    """Raises ConfigError with the message of the first rule that is violated."""
    for wrong, message in rules:
        if wrong:
            raise ConfigError(message)


def _update(c: Config, devices: int, rows_together: int) -> Rules:
    r = c.rollout
    packed = c.training.packing == "prefix_tree"
    per_update = r.prompts * (1 if packed else r.group_rows) // c.algorithm.minibatches
    what, factors = ("prompts", "") if packed else ("samples", " * group_size")
    if r.max_sequences > 1:
        what, factors = "rows", " * group_size * max_sequences"
    reason = f"; the loss keeps {rows_together} samples together" if rows_together > 1 else ""
    if packed:
        reason = "; with config.training.packing = 'prefix_tree' the samples of a prompt stay together"
    yield (
        packed and rows_together > 1,
        f"config.training.packing = 'prefix_tree' makes one row of a prompt's samples, and the loss reads "
        f"{rows_together} rows together; set 'none'",
    )
    optimizers = {"optimizer": c.optimizer}
    if has_critic(c.algorithm):
        optimizers["critic.optimizer"] = c.critic.optimizer
    for name, o in optimizers.items():
        yield (
            per_update % (devices * o.microbatches * rows_together) != 0,
            (
                f"an update has {per_update} {what} (config.rollout.prompts{factors} / config.algorithm.minibatches), "
                f"which can't be divided into config.{name}.microbatches = {o.microbatches} parts among "
                f"{_split(devices)}{reason}"
            ),
        )


def _split(devices: int) -> str:
    return f"the {devices} devices of the mesh axes data and fsdp"


def batch_rows(c: Config) -> tuple[str, int]:
    """The key of `config.rollout`, and its number, that the devices which sample divide among them."""
    keys = ("slots", "batch_size", "prompts")
    return next((key, getattr(c.rollout, key)) for key in keys if getattr(c.rollout, key))


def _sampling(c: Config, devices: int) -> Rules:
    """Sampling on `devices` devices; the policy's part is in `_sampled_policy`."""
    r, tensor, (key, rows) = c.rollout, c.mesh.rollout_tensor, batch_rows(c)
    yield (
        r.slots > 0 and r.batch_size > 0,
        f"config.rollout.batch_size = {r.batch_size} is for sampling without slots, and config.rollout.slots = "
        f"{r.slots}; set one of them",
    )
    if r.in_flight != "finish":
        goes_on = f"config.rollout.in_flight = {r.in_flight!r}"
        for key in ("rollout.slots", "training.max_lag"):
            value = operator.attrgetter(key)(c)
            yield (
                value == 0,
                f"config.{key} = 0: {goes_on} lets episodes go on after an update, which needs more than 0",
            )
        further = {
            "max_draws": c.algorithm.max_draws > 1,
            "baseline": c.algorithm.baseline in ("greedy", "monte_carlo"),
        }
        for key, asks in further.items():
            yield (
                asks,
                f"config.algorithm.{key} = {getattr(c.algorithm, key)!r} samples further episodes in a step, and "
                f"{goes_on} trains it on the groups that finish first; set 'finish'",
            )
    if tensor:
        yield devices % tensor != 0, f"config.mesh.rollout_tensor = {tensor} does not divide {_samplers(c, devices)}"
        yield (
            rows % (devices // tensor) != 0,
            f"config.rollout.{key} = {rows} can't be divided among {_samplers(c, devices)}, in groups of "
            f"config.mesh.rollout_tensor = {tensor}",
        )


def _sampled_policy(c: Config, p: PolicyConfig, devices: int) -> Rules:
    tensor, (key, rows) = c.mesh.rollout_tensor, batch_rows(c)
    yield from _divided(p, tensor or 1, "rollout_tensor")
    yield (
        not tensor and not tensor_sizes(p, devices, rows),
        f"config.rollout.{key} = {rows} can't be divided among {_samplers(c, devices)}, nor among groups of them whose "
        f"size divides config.policy.num_heads = {p.num_heads} and mlp_width = {p.mlp_width}; "
        f"{-(-rows // devices) * devices} can",
    )


def _samplers(c: Config, devices: int) -> str:
    return f"the {devices} devices that sample" + " (config.rollout.devices)" * bool(c.rollout.devices)


def _batches(c: Config, rows: int, run: Run | None) -> Rules:
    """Batches of training are divided among the `rows` devices of the mesh axes data and fsdp."""
    if run in ("rl", None):
        yield from _update(c, rows, 1)
    for name in RUNS if run is None else {run} & {*RUNS}:
        s = supervised_options(c, name)
        yield (
            s.batch_size % (rows * s.optimizer.microbatches) != 0,
            f"config.{name}.batch_size = {s.batch_size} can't be divided into config.{name}.optimizer.microbatches = "
            f"{s.optimizer.microbatches} parts among {_split(rows)}",
        )


def _divided(p: PolicyConfig, tensor: int, key: str) -> Rules:
    for name, size in (("num_heads", p.num_heads), ("mlp_width", p.mlp_width)):
        yield (
            size % tensor != 0,
            f"config.policy.{name} = {size} can't be divided among config.mesh.{key} = {tensor} devices",
        )


def _policy(p: PolicyConfig, fsdp: int, context: int, tensor: int) -> Rules:
    yield from _divided(p, tensor, "tensor")
    yield (
        p.num_heads % (context * tensor) != 0,
        f"config.policy.num_heads = {p.num_heads} can't be divided among config.mesh.context = {context} times "
        f"config.mesh.tensor = {tensor} devices",
    )
    yield (
        p.width % (fsdp * context) != 0,
        f"config.policy.width = {p.width} can't be divided among config.mesh.fsdp = {fsdp}"
        + f" times config.mesh.context = {context}" * (context > 1)
        + " devices",
    )
