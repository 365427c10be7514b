"""The ledger for a person: a table, a curve, and what is left."""

from __future__ import annotations

__all__ = ["account_of", "as_table", "as_text"]

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.evaluations import read_answered
from client.ledger import Account, Entry, read_entries
from client.manifest import Manifest, Policy
from common.privacy import delta_of, epsilon

if TYPE_CHECKING:
    from client.site import Site

_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 60, 8


def account_of(folder: Path, site: Manifest | Site) -> Account:
    """The ledger below `folder`: its cap is the site's policy,
    its δ follows from the site's nominal number of patients.
    """
    return Account(folder, site.id, site.policy.epsilon_cap, delta_of(site.nominal_patients))


def as_table(account: Account, policy: Policy) -> dict[str, Any]:
    """What `client ledger --json` prints."""
    entries, answered = read_entries(account), read_answered(account.folder)
    return {
        "site": account.site,
        "epsilon": _spent(entries, account),
        "cap": account.cap,
        "delta": account.delta,
        "insecure_demo": any(entry.insecure_demo for entry in entries),
        "evaluations": {
            "in_all": answered.in_all,
            "cap_in_all": policy.evaluations_in_all,
            "cap_per_run": policy.evaluations_per_run,
            "runs": {run: len(asked) for run, asked in sorted(answered.requests.items())},
        },
        "entries": [asdict(entry) for entry in entries],
    }


def as_text(account: Account, policy: Policy) -> str:
    """The table, the curve, the sum and what is beside it, as text."""
    entries = read_entries(account)
    total = (
        f"site {account.site}: ε = {_spent(entries, account):.2f} of {account.cap:.2f} spent on each patient, δ = "
        f"{account.delta:.2g}, {len(entries)} results released. A patient of two hospitals pays in both; "
        f"updates sent without privacy are not counted here.\n{_evaluations(account, policy)}"
    )
    if not entries:
        return total
    if demo := [str(entry.number) for entry in entries if entry.insecure_demo]:
        total += f"\nINSECURE DEMO: the noise of line {', '.join(demo)} came from a seed and protects nobody."
    head = f"{'':>5}  {'when':20} {'run':24} {'round':>5} {'noise σ':>8} {'rate':>6} {'steps':>5} {'ε so far':>8}"
    return "\n".join([head, *(_row(entry) for entry in entries), "", *_curve(entries, account.cap), "", total])


def _evaluations(account: Account, policy: Policy) -> str:
    answered = read_answered(account.folder)
    runs = "".join(f", {run} {len(asked)}" for run, asked in sorted(answered.requests.items()))
    return (
        f"Evaluations answered, without noise and not counted in ε: {answered.in_all} of {policy.evaluations_in_all} "
        f"that the policy allows in all, {policy.evaluations_per_run} for each run{runs and ' (' + runs[2:] + ')'}."
    )


def _spent(entries: tuple[Entry, ...], account: Account) -> float:
    """As the last line says, or anew where δ has changed since: it follows from a number that a person declares."""
    if not entries or entries[-1].delta == account.delta:
        return entries[-1].epsilon if entries else 0.0
    return epsilon([entry.plan for entry in entries], delta=account.delta)


def _row(entry: Entry) -> str:
    plan, when = entry.plan, entry.when.removesuffix("+00:00").replace("T", " ")
    return (
        f"{entry.number:5}  {when:20} {entry.request.run:24} {entry.request.round:5} {plan.noise_multiplier:8.3f} "
        f"{plan.sampling_rate:6.3f} {plan.steps:5} {entry.epsilon:8.3f}"
    )


def _curve(entries: tuple[Entry, ...], cap: float) -> list[str]:
    """ε over releases, (at most) 60 columns wide and 8 lines high; the top is the cap."""
    columns = min(_WIDTH, len(entries))
    shown = [entries[(i + 1) * len(entries) // columns - 1].epsilon for i in range(columns)]
    lines = []
    for level in reversed(range(_HEIGHT)):
        fill = (min(max(value / cap * _HEIGHT - level, 0), 1) for value in shown)
        label = f"{cap * (level + 1) / _HEIGHT:7.2f} ┤" if level % 2 else "        │"
        lines.append(label + "".join(_BARS[round(share * 8)] for share in fill))
    return lines
