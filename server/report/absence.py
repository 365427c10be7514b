"""What is not in the run folder, and what failed: said in words, never passed over."""

from __future__ import annotations

__all__ = ["absences", "failures"]

from collections import Counter

from server.report.differences import no_contrast
from server.report.estimates import reason
from server.report.reading import ALL, ARMS, IN_FEDERATION, LEAVE_ONE_OUT, Run


def absences(run: Run, *, files_absent: int, learning: bool, pictures: bool) -> list[str]:
    """Sentences; `files_absent` counts rows whose predictions could not be read, the rest say which figures exist."""
    notes = list(run.missing)
    for arm in ARMS:
        if arm not in run.arms():
            notes.append(f"The arm {arm} was not run.")
    if run.rows and LEAVE_ONE_OUT not in run.protocols:
        notes.append("No center was left out in turn (leave-one-center-out was not run).")
    if run.rows and IN_FEDERATION not in run.protocols:
        notes.append("In-federation results were not computed.")
    if run.meta and not any(entry.measure == "oe" for entry in run.meta):
        notes.append("O/E across centers is not known: the rows hold no observed and expected cases.")
    if not run.contrasts:
        notes.append(no_contrast(run))
    if not run.shift:
        notes.append(f"There are no shift cards: {_no_cards(run)}.")
    if not run.repairs:
        notes.append("Repair without labels was not measured: it is not asked for, or no center is unseen.")
    if not run.subgroups and not run.subgroups_absent:
        notes.append("There are no results by group of patients: no covariate makes groups.")
    if files_absent:
        notes.append(
            f"ROC and calibration curves leave out {files_absent} of the results: their predictions are not in the run "
            "folder (only a simulation can have them)."
        )
    if not learning:
        notes.append("There are no learning curves: no evaluation between rounds was recorded.")
    if not pictures:
        notes.append("There are no attention maps: pictures come from sites, so only a simulation has them.")
    if not run.appearances:
        notes.append("What the centers' images look like was not recorded.")
    return notes + _nulls(run) + _unknown(run)


def _no_cards(run: Run) -> str:
    """Why nobody was asked for the sums that they need."""
    if run.setting("privacy", "kind") not in (None, "none"):
        return "the sums that they need are in no privacy budget"
    if run.setting("evaluation", "secure") is True:
        return "the sums that they need are not asked for where sums leave under masks"
    return "no sums about the centers' images were compared"


def _nulls(run: Run) -> list[str]:
    counted = Counter(
        (row.site, row.why) for row in run.rows if row.auc is None or (row.why and row.why != "separated")
    )
    return [
        f"{'all centers' if site == ALL else site}: {number} {'result lacks' if number == 1 else 'results lack'} "
        f"numbers ({reason(why)})."
        for (site, why), number in sorted(counted.items(), key=lambda item: (item[0][0], item[0][1] or ""))
    ]


def _unknown(run: Run) -> list[str]:
    if run.provenance.commit is None:
        return ["The code's commit is not known: it did not run from a git checkout."]
    if run.provenance.dirty:
        return ["The code had changes that are in no commit."]
    return []


def failures(run: Run) -> list[tuple[str, str, str, str]]:
    """(run, round, site, why), in the order of the records."""
    return [(f.run, "–" if f.round is None else str(f.round), f.site, f.why) for f in run.failures]
