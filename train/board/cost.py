"""What it cost: hours and money of the account of its hours, of the plan, or else the hours that the run measured itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.board.section import BoardSection, Words
from train.dossier import RESULT, Dossier, Figure

Facts = list[tuple[str, Words]]


def section(dossier: Dossier) -> BoardSection:
    """Returns hours and cost, with what is not known."""
    facts = _account(dossier) or _measured(dossier)
    facts += _plan(dossier)
    missing = []
    if not facts:
        missing.append("Hours were not measured: the run has no result.")
    if not dossier.goodput.get("cost") and dossier.plan.get("list_price") is None:
        missing.append(
            "The cost in money is not known: no prices were given (a site file with prices, then aisc runs goodput)."
        )
    return BoardSection("Cost", "成本", facts=tuple(facts), missing=tuple(missing))


def _account(dossier: Dossier) -> Facts:
    account = dossier.goodput
    if not account.get("total"):
        return []
    unit = str(account["unit"])
    trained = account["hours"].get("train", 0.0)
    facts: Facts = [
        ("Used", (Figure(f"{account['total']:.3f} {unit}", "goodput.json: total"),)),
        ("of these, training itself", (Figure(f"{trained:.3f} {unit}", "goodput.json: hours.train"),)),
    ]
    if account.get("cost"):
        prices = account["prices"]
        price = Figure(f"{prices['currency']} {account['cost']:,.2f}", "goodput.json: cost")
        facts.append(("List price", (price, f" (prices: {prices['source'] or 'not stated'})")))
        if prices.get("subsidy") is not None:
            net = account["cost"] * (1 - prices["subsidy"])
            facts.append(
                (
                    "After the subsidy",
                    (Figure(f"{prices['currency']} {net:,.2f}", "computed from goodput.json: cost, prices.subsidy"),),
                )
            )
    return facts


def _measured(dossier: Dossier) -> Facts:
    """Returns hours from the run's own clock: the seconds of each start times its own processes."""
    used: list[Mapping[str, Any]] = dossier.result.get("used") or []
    if not used:
        return []
    unit = "CPU process-hours" if all(one["device"] == "CPU" for one in used) else "GPU-hours"
    hours = sum(one["seconds"] * one["world"] for one in used) / 3600
    shown = Figure(f"{hours:.3f} {unit}", f"computed from {RESULT}: used, the sum of seconds times world")
    shapes = dict.fromkeys(f"{one['world']} x {one['device']}" for one in used)
    return [("Used, by the run's own clock", (shown, " on ", Figure(", then ".join(shapes), f"{RESULT}: used.*.world, device")))]


def _plan(dossier: Dossier) -> Facts:
    plan = dossier.plan
    if not isinstance(plan.get("gpu_hours"), (int, float)):
        return []
    facts: Facts = [("Planned", (Figure(f"{plan['gpu_hours']:.1f} GPU-hours", "plan.json: gpu_hours"),))]
    if isinstance(plan.get("list_price"), (int, float)):
        words: Words = (
            Figure(f"{plan['currency']} {plan['list_price']:,.0f}", "plan.json: list_price"),
            " at list price",
        )
        if isinstance(plan.get("net_price"), (int, float)):
            words = (
                *words,
                ", ",
                Figure(f"{plan['currency']} {plan['net_price']:,.0f}", "plan.json: net_price"),
                " after the subsidy",
            )
        facts.append(("Planned cost", words))
    return facts
