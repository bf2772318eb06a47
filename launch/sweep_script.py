"""The scripts of a sweep: one job array for a grid, one small job for the controller of a search. Pure functions."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

from configs.facts import Shape
from launch.slurm import Launch, header, running, setting_up
from launch.sweep import Sweep

ARRAY_SCRIPT, SEARCH_SCRIPT = "sweep.sbatch", "search.sbatch"
# A controller that is killed (memory, a signal) is started again in its job so many times.
MOST_STARTS = 5


def spell_array(numbers: Sequence[int], throttle: int) -> str:
    """Returns `0-5%2` or `1,4-5%2` for sbatch."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    spelled = ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"{spelled}%{throttle}"


def render_array(launch: Launch, sweep: Sweep, num_points: int, throttle: int) -> str:
    """Returns the script of a grid: each element of the array runs one point's launch.yaml.

    Args:
        launch: of any point; the elements of an array ask for the same.
        sweep: its folder, absolute.
        num_points: how many.
        throttle: how many at once.
    """
    options = {**launch.options, "array": spell_array(range(num_points), throttle), "output": sweep.path / "jobs" / "%A_%a.out"}
    launch = dataclasses.replace(launch, name=sweep.name, run=sweep.path, options=options)
    shape = launch.shape
    what = f"{num_points} points, each {shape.nodes} x {shape.ranks_per_node} ranks"
    return "\n".join(
        [
            *header(launch, what, launch_by_hand=ARRAY_SCRIPT),
            *setting_up(launch),
            "",
            "# The run of this element: the second column of its line in points.txt.",
            f"AISC_RUN=$(awk -F '\\t' -v number=\"$SLURM_ARRAY_TASK_ID\" '$1 == number {{ print $2 }}' {shlex.quote(str(sweep.path / 'points.txt'))})",
            *running(launch),
            "",
        ]
    )


def render_search(launch: Launch, sweep: Sweep) -> str:
    """Returns the script of a search's controller: one core, no GPU; it submits the trials and looks after them.

    Args:
        launch: of a job without GPUs; its shape does not matter.
        sweep: its folder, absolute.
    """
    options = {name: value for name, value in launch.options.items() if name not in ("mem", "exclusive")}
    launch = dataclasses.replace(
        launch,
        name=f"{sweep.name}-search",
        run=sweep.path,
        shape=Shape(1, 0, 1, 1),
        options=options,
        environment={**launch.environment, "OMP_NUM_THREADS": "1"},
    )
    return "\n".join(
        [
            *header(launch, "the controller of a search", launch_by_hand=SEARCH_SCRIPT),
            *setting_up(launch),
            "",
            "# It can be killed and started again at any moment: it finds its trials by their folders and jobs.",
            "starts=0",
            'until "${AISC[@]}" job search "$AISC_RUN"; do',
            "  code=$?",
            '  if [ "$code" -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; exit 75; fi  # the time of this job is over',
            "  starts=$((starts + 1))",
            f'  if [ "$code" -le 128 ] || [ "$starts" -ge {MOST_STARTS} ]; then exit "$code"; fi',
            "done",
            "",
        ]
    )
