"""What a run needs before it is queued: memory, time, disk, GPU-hours and money. Needs no torch.

    make.py      make_plan: every figure of a configuration      choice.py    engines, GPUs and micro-batches that fit
    flops.py     operations of a token                           speed.py     step, traffic, wall time
    work.py      tokens, steps, evaluations, saves               cards.py     GPUs and the utilisation published for them
    cost.py      GPU-hours, money, budgets                       disk.py      checkpoints, export, store, free space
    calibrate.py a run's own speed and memory                    cases.py     what others measured on GPUs
    explain.py   a figure's formula                              sheet.py     the page for a subsidy application
    reference.py the reference model's pass before step 1
"""

from launch.plan.cost import budget_left, budget_problem
from launch.plan.figures import Figure
from launch.plan.make import Plan, make_plan
from launch.plan.work import Size

__all__ = ["Figure", "Plan", "Size", "budget_left", "budget_problem", "make_plan"]
