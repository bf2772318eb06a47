"""What it cost: hours and money of the account of its hours, of the plan, or else the hours that the run measured itself."""

from __future__ import annotations

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
    """Returns hours from the run's own clock: its duration times its processes."""
    seconds = dossier.result.get("duration_s")
    if seconds is None:
        return []
    started = [event for event in dossier.events if event.get("event") == "started"]
    world, device = (started[-1]["world"], str(started[-1]["device"])) if started else (1, "unknown device")
    unit = "CPU process-hours" if device == "CPU" else "GPU-hours"
    hours = Figure(
        f"{seconds * world / 3600:.3f} {unit}",
        f"computed from {RESULT}: duration_s, and attempts/*/events.jsonl: started.world",
    )
    return [
        (
            "Used, by the run's own clock",
            (hours, " on ", Figure(f"{world} x {device}", "attempts/*/events.jsonl: started.world, device")),
        )
    ]


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
