"""How fast a column trains: operations over an assumed rate, traffic over the site's links, and what stands still.

step = max(compute, communication) + transfers of what lives on the host. Communication is counted where the site file
gives a rate; it overlaps with computing, so only the longer one counts. Not counted: the queue, start-up, compilation,
answers to held-out prompts, the final export.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.model_shapes import numel
from configs.site import Network
from launch.plan.choice import Fit
from launch.plan.figures import FORMULA, Figure, unknown, weakest
from launch.plan.flops import Flops
from launch.plan.reference import pass_hours
from launch.plan.work import Work

# PCIe 4.0 x16 moves 31.5 GB/s each way (PCI-SIG); 5.0 twice that. What lives on the host crosses it.
HOST_LINK = 31.5e9
# Seconds of an update on the CPUs of one node, per number: 64 rows took 64/2.05 s with the optimizer of a 6.74 B model on
# the host and 64/4.45 s without (ZeRO-3, 8 A800, two Xeon 8358: gist.github.com/chenyaofo/d4cd6a20ab4b95cb3a49491747e2139a).
HOST_UPDATE_S = (64 / 2.05 - 64 / 4.45) / 6.74e9


@dataclass(frozen=True, slots=True)
class Rate:
    """FLOP/s that one GPU does of what the formula counts: peak x utilisation, or as measured by a run.

    Attributes:
        flops: per GPU; None: not known.
        figure: the utilisation, with its source.
        missing: the sentence that asks for what is not known.
    """

    flops: float | None
    figure: Figure
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one column: tokens per second of all GPUs while it trains, and the wall time of the whole run, in hours.

    `reference_h` of it are the pass of the reference model before step 1.
    """

    tokens_per_s: Figure
    wall_h: Figure
    step_s: Figure
    communication_s: Figure
    reference_h: Figure


def speed_of(fit: Fit, flops: Flops, work: Work | None, rate: Rate, network: Network) -> Speed:
    """Returns the speed of a column."""
    communication = communication_of(fit, network, flops.looks)
    reference = pass_hours(fit, flops, work, rate.flops, rate.missing)
    if rate.flops is None:
        none = unknown("tokens/s", rate.missing)
        return Speed(none, unknown("h", rate.missing), unknown("s", rate.missing), communication, reference)
    row_tokens = work.row_tokens if work else float(fit.setup.sequence_length)
    per_token = flops.done(fit.setup.recompute)
    rows = fit.micro_batches * fit.micro_batch_size
    compute = rows * row_tokens * per_token / rate.flops
    host = host_seconds(fit, flops.looks)
    step = max(compute, communication.value or 0.0) + host
    sends_longer = (communication.value or 0.0) > compute
    basis = weakest(rate.figure.basis, communication.basis) if sends_longer else rate.figure.basis
    step_figure = Figure(
        step,
        "s",
        basis,
        f"max(compute, communication) + host; compute = {fit.micro_batches} micro-batches x {fit.micro_batch_size} rows x "
        f"{row_tokens:,.0f} tokens x {per_token:.4g} FLOP / {rate.flops:.4g} FLOP/s = {compute:.4g} s; communication = "
        f"{communication.value or 0.0:.4g} s; host = {host:.4g} s",
        rate.figure.source,
        None if rate.figure.band is None or not rate.figure.value else step * rate.figure.band / rate.figure.value,
    )
    tokens = Figure(
        fit.global_rows * row_tokens / step,
        "tokens/s",
        basis,
        f"rows x tokens a row / step = {fit.global_rows} x {row_tokens:,.0f} / {step:.4g} s",
        rate.figure.source,
        _scaled(step_figure, fit.global_rows * row_tokens / step),
    )
    wall = wall_of(fit, flops, work, rate, step_figure, reference)
    return Speed(tokens, wall, step_figure, communication, reference)


def wall_of(fit: Fit, flops: Flops, work: Work | None, rate: Rate, step: Figure, reference: Figure) -> Figure:
    """Returns the hours of the reference's pass, all steps, evaluations and saves."""
    if work is None or rate.flops is None or step.value is None:
        return unknown("h", "the size of the data is not known")
    training = work.num_steps * step.value
    evaluating = 0.0
    if work.held_out_tokens:
        passes = work.evaluations * (1 + flops.looks)
        evaluating = passes * work.held_out_tokens * flops.forward / (rate.flops * fit.ranks)
    saving = work.saves * save_stall(fit)
    left_out = "" if work.held_out_tokens is not None else " (size of the held-out data not known: not counted)"
    hours = (training + evaluating + saving) / 3600 + (reference.value or 0.0)
    before = ""
    if reference.value != 0:
        before = f"; reference's pass = {reference.value:.4g} h" if reference.value else "; reference's pass not known: not counted"
    return Figure(
        hours,
        "h",
        weakest(step.basis, work.steps.basis, *([reference.basis] if reference.value else [])),
        f"{work.num_steps:,} steps x {step.value:.4g} s = {training / 3600:.4g} h; {work.evaluations} evaluations = "
        f"{evaluating / 3600:.4g} h{left_out}; {work.saves} saves = {saving / 3600:.4g} h (copy to the host at "
        f"{HOST_LINK / 1e9:g} GB/s; writing goes on behind){before}",
        step.source,
        _scaled(step, hours),
    )


def save_stall(fit: Fit) -> float:
    """Returns the seconds that a save keeps a rank: the copy of its part of weights and moments to the host."""
    state = numel(fit.model.parameters, trained=True) * (3 if fit.setup.optimizer == "adamw" else 1) * 4
    return state / fit.ranks / HOST_LINK


def host_seconds(fit: Fit, looks: int = 0) -> float:
    """Returns the seconds a step spends on the host's update and on moving what lives there.

    The measured update includes moving gradients and weights once; weights that live there move for every micro-batch, and
    for each of the `looks` at it before.
    """
    trained, width = numel(fit.model.parameters, trained=True), fit.setup.compute_bytes
    seconds = 0.0
    if fit.setup.offload_optimizer or (fit.setup.offload_parameters and fit.setup.engine == "fsdp2"):
        seconds += trained * HOST_UPDATE_S / fit.nodes.count
    if fit.setup.offload_parameters:
        seconds += (2 + looks) * fit.micro_batches * numel(fit.model.parameters) * width / fit.ranks / HOST_LINK
    return seconds


def communication_of(fit: Fit, network: Network, looks: int = 0) -> Figure:
    """Returns the seconds that a step's traffic takes on the slowest link.

    Each byte of a ring passes each link once (NCCL's rings); a node's links carry one copy for all its GPUs.
    """
    per_rank, formula = traffic_of(fit, looks)
    if fit.ranks == 1:
        return Figure(0.0, "s", FORMULA, "one GPU sends nothing")
    across = fit.nodes.count > 1
    key = "interconnect_gb_per_s" if across else "within_node_gb_per_s"
    gigabytes = getattr(network, key)
    if gigabytes is None:
        return unknown("s", f"traffic is not counted: network.{key} is missing in the site file", formula)
    seconds = per_rank / (gigabytes * 1e9)
    return Figure(seconds, "s", FORMULA, f"{formula} / {gigabytes:g} GB/s", f"site file: network.{key}")


def traffic_of(fit: Fit, looks: int = 0) -> tuple[float, str]:
    """Returns the bytes that pass each link in a step, and the formula (arXiv 1910.02054, section 7).

    Where ranks share weights, each of the `looks` gathers them once more.
    """
    everything, trained = numel(fit.model.parameters), numel(fit.model.parameters, trained=True)
    width, times, ranks = fit.setup.compute_bytes, fit.micro_batches, fit.ranks
    share = (ranks - 1) / ranks
    sums = 4 if fit.setup.engine in ("ddp", "fsdp2") else fit.setup.sum_bytes
    if fit.setup.engine == "ddp":
        return share * 2 * trained * sums, f"2 x {trained:.4g} trained x {sums} bytes x (N-1)/N"
    if fit.setup.engine == "zero1":
        return share * trained * (sums + width), f"{trained:.4g} trained x ({sums} + {width}) bytes x (N-1)/N"
    if fit.setup.engine == "zero2":
        amount = trained * (times * sums + width)
        return share * amount, f"{trained:.4g} trained x ({times} micro-batches x {sums} + {width}) bytes x (N-1)/N"
    amount = times * ((2 + looks) * everything * width + trained * sums)
    formula = f"{times} micro-batches x ({2 + looks} x {everything:.4g} weights x {width} + {trained:.4g} trained x {sums}) bytes x (N-1)/N"
    return share * amount, formula


def _scaled(step: Figure, value: float) -> float | None:
    return None if step.band is None or not step.value else value * step.band / step.value
