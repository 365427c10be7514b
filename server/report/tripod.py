"""The TRIPOD+AI checklist (Collins et al. 2024), filled where the run knows the answer; the rest is the authors'."""

from __future__ import annotations

__all__ = ["ChecklistRow", "checklist"]

from collections.abc import Sequence
from dataclasses import dataclass

from server.report.estimates import Estimate, estimate
from server.report.glossary import GLOSSARY
from server.report.numbers import at_most, count, decimal, interval
from server.report.reading import ALL, IN_FEDERATION, LEAVE_ONE_OUT, Run
from server.report.repairs import KEYS
from server.report.sentence import lead_arm, lead_protocol
from server.shift_card import ShiftCard

_ITEMS = (
    ("1", "Title names the study, the people it is for and the outcome"),
    ("2", "Abstract, by its own checklist"),
    ("3a", "Clinical context, and the models that exist"),
    ("3b", "For whom and for which users the model is meant"),
    ("3c", "Known inequalities between groups of people"),
    ("4", "Aims: development, evaluation, or both"),
    ("5a", "Where the data come from, and how representative they are"),
    ("5b", "Dates of the data"),
    ("6a", "Setting, number and place of the centers"),
    ("6b", "Who was eligible"),
    ("6c", "Treatments, and how they were handled"),
    ("7", "How data were prepared, and whether alike in all groups"),
    ("8a", "The outcome, its time and why it was chosen"),
    ("8b", "Who judged the outcome, and how qualified"),
    ("8c", "What the judges of the outcome did not know"),
    ("9a", "How the predictors were chosen"),
    ("9b", "What the predictors are, and how they are measured"),
    ("9c", "Who judged predictors that need judgement"),
    ("10", "Why the study has this size"),
    ("11", "Missing data"),
    ("12a", "How data were divided for development and evaluation"),
    ("12b", "How predictors enter the model"),
    ("12c", "Kind of model, how it was built, tuned and checked"),
    ("12d", "How differences between centers were estimated"),
    ("12e", "Measures of performance and comparison"),
    ("12f", "Updating of the model after evaluation"),
    ("12g", "How predictions were computed in the evaluation"),
    ("13", "Unequal classes, and what was done about them"),
    ("14", "Fairness, and why the approach was chosen"),
    ("15", "What the model puts out, and how a threshold was chosen"),
    ("16", "How development and evaluation data differ"),
    ("17", "Ethical approval and consent"),
    ("18a", "Funding"),
    ("18b", "Conflicts of interest"),
    ("18c", "Where the protocol is"),
    ("18d", "Registration"),
    ("18e", "Sharing of data"),
    ("18f", "Sharing of code"),
    ("19", "Patients and public taking part"),
    ("20a", "Flow of participants"),
    ("20b", "Characteristics of participants, by center"),
    ("20c", "Development and evaluation compared on important predictors"),
    ("21", "Participants and outcomes in each analysis"),
    ("22", "The full model, so that others can use it"),
    ("23a", "Performance with intervals, and in groups"),
    ("23b", "Differences of performance between centers"),
    ("24", "Results of updating"),
    ("25", "Interpretation, fairness included"),
    ("26", "Limits"),
    ("27a", "What to do with poor or missing input"),
    ("27b", "What users must do and know"),
    ("27c", "What comes next"),
)


@dataclass(frozen=True)
class ChecklistRow:
    """An item, what it asks for in our words, and the run's answer; empty where the authors must state it."""

    item: str
    asks: str
    answer: str


def checklist(run: Run) -> list[ChecklistRow]:
    """Every item in order."""
    known = {**_data(run), **_methods(run), **_results(run)}
    return [ChecklistRow(item, asks, known.get(item, "")) for item, asks in _ITEMS]


def _data(run: Run) -> dict[str, str]:
    sites = run.sites()
    place, places = run.places(sites)
    named = f"{len(sites)} {place if len(sites) == 1 else places}: {', '.join(sites)}." if sites else ""
    known = {"6a": f"{named} Where and what they are: the authors must state." if named else ""}
    if run.artificial:
        known["5a"] = f"Cut from one center, not real centers: {', '.join(sorted(run.artificial))}."
    crop, task = run.setting("crop"), run.setting("task")
    if isinstance(crop, dict):
        said = ", ".join(f"{key} {value}" for key, value in sorted(crop.items()))
        known["7"] = f"Every image becomes one gray crop by the same rule ({said})."
    if isinstance(task, dict) and task.get("classes"):
        classes = ", ".join(str(name) for name in task["classes"])
        known["8a"] = (
            f"Classes {classes}; positive: {task.get('positive')}. How they were found: the authors must state."
        )
    return known | _predictors(crop.get("region") if isinstance(crop, dict) else None)


def _predictors(region: object) -> dict[str, str]:
    """What enters the model; nothing is said where it is not known how images are cropped."""
    if region == "frame":
        return {"9b": "The image alone; no other predictor enters the model."}
    if region != "lesion":
        return {}
    return {
        "9b": "The image, in a crop around the lesion; no other predictor enters the model. A mask or box that came "
        "with the data decides where the crop lies.",
        "9c": "The crop rests on a mask or box. Who drew it, and what they knew: the authors must state.",
    }


def _methods(run: Run) -> dict[str, str]:
    known = {}
    split = "train, validation and test by patient; no patient is on two sides"
    how = {
        LEAVE_ONE_OUT: "leave-one-center-out: each center in turn is kept out and all its patients are the test",
        IN_FEDERATION: f"in-federation: {split}",
    }
    if run.protocols:
        known["12a"] = f"{'; '.join(how[p] for p in run.protocols)}.".capitalize()
        known["12e"] = (
            "AUC with its interval by patient, sensitivity and specificity at a locked threshold, calibration slope "
            "and intercept, Brier score, ECE, differences between arms; see Definitions."
        )
    model, strategy = run.setting("model"), run.setting("strategy", "kind")
    if isinstance(model, dict):
        parts = ", ".join(
            f"{key} {value}" for key, value in model.items() if isinstance(value, str | bool | float | int)
        )
        known["12b"] = "Gray levels of the crop, through a convolutional network with attention."
        known["12c"] = (
            f"Attention CNN ({parts}); strategy {strategy or '–'}; seeds {', '.join(map(str, run.seeds)) or '–'}. "
            "Every setting stands under Budget and provenance."
        )
    if run.meta:
        known["12d"] = (
            "Random-effects meta-analysis over the left-out centers (restricted maximum likelihood, "
            "Hartung–Knapp–Sidik–Jonkman interval) with a prediction interval."
        )
    weights = run.setting("training", "class_weights")
    if isinstance(weights, bool):
        known["13"] = f"Classes are {'weighted by their share' if weights else 'not weighted'} in the loss."
    wanted = run.setting("evaluation", "sensitivity")
    known["12f"], known["24"] = _updating(run)
    if isinstance(wanted, float):
        known["15"] = (
            f"A probability of the positive class; the threshold is where validation patients of the training centers "
            f"reach sensitivity {decimal(wanted)}, then locked."
        )
    if run.provenance.commit:
        dirty = ", with changes that are in no commit" if run.provenance.dirty else ""
        known["18f"] = f"Commit {run.provenance.commit}{dirty}. Where it is kept: the authors must state."
    return known


def _updating(run: Run) -> tuple[str, str]:
    """How models were updated, and where what came of it stands."""
    none = "None: the models were not updated or recalibrated after evaluation."
    measured = sorted(
        {one.repair for one in run.repairs if one.repair in KEYS and one.repair != "none" and not one.why}
    )
    if not measured:
        return none, none
    kinds = ", ".join(GLOSSARY[KEYS[repair]].name.lower() for repair in measured)
    how = (
        f"Tried at unseen centers without labels, beside the unrepaired result: {kinds}; see Repair without labels. No "
        "other number of this report is of an updated model."
    )
    return how, "See Repair without labels."


def _results(run: Run) -> dict[str, str]:
    arm, protocol = lead_arm(run), lead_protocol(run)
    if arm is None or protocol is None:
        return {}
    known = {}
    sizes = [
        f"{site}: {count(e.rows[0].n_patients)} patients, {count(e.rows[0].n_images)} "
        f"images{_events(e.rows[0].observed)}"
        for site in run.sites(protocol)
        if (e := estimate(run, arm, protocol, site)) is not None and e.rows
    ]
    if sizes:
        known["21"] = f"Tested, {protocol}: {'; '.join(sizes)}."
    whole = estimate(run, arm, protocol, ALL)
    if whole is not None and whole.auc is not None:
        known["23a"] = (
            f"{arm}, {protocol}: AUC {decimal(whole.auc)} ({interval(whole.low, whole.high)}{_error(whole)}); see the "
            "tables."
        )
    found = run.across(arm, "auc")
    if found is not None and found.tau is not None and found.i2 is not None:
        known["23b"] = f"τ {decimal(found.tau)} on the logit of AUC, I² {100 * found.i2:.0f} %; see Across centers."
    if run.subgroups:
        groups = "By group: see Groups of patients. Why these groups: the authors must state."
        known["23a"] = f"{known['23a']} {groups}" if "23a" in known else groups
    told = ["gray levels and texture by center: see What the shift looks like"] if run.appearances else []
    if run.shift:
        told.append(f"shift cards: {_who_differs(run.shift)}")
    if told:
        joined = "; ".join(told)
        known["16"] = f"{joined[0].upper()}{joined[1:]}."
    return known


def _who_differs(cards: Sequence[ShiftCard]) -> str:
    """By name; of two centers left to each other, that one of them does."""
    alone = sorted(card.site for card in cards if card.causes and not card.or_other)
    pairs = sorted({tuple(sorted((card.site, card.or_other))) for card in cards if card.or_other})
    parts = [f"{', '.join(alone)} {'differs' if len(alone) == 1 else 'differ'}"] if alone else []
    parts += [f"{a} or {b} differs, the data cannot tell which" for a, b in pairs]
    none = "no shift was shown" if any(card.verdict for card in cards) else "no center could be compared"
    return " and ".join(parts) or none


def _error(whole: Estimate) -> str:
    return "" if whole.bound is None else f"; from sums, {at_most(whole.bound)}"


def _events(observed: int | None) -> str:
    return "" if observed is None else f", {count(observed)} positive"
