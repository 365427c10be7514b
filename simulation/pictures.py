"""Attention maps over cases of each center, under a model that never saw that center where there is one."""

from __future__ import annotations

__all__ = ["draw_pictures"]

from collections.abc import Mapping, Sequence
from pathlib import Path

from client.explain import attention_pictures, chosen_cases
from client.service import site_crops
from client.site import Site
from common.config import Experiment
from common.files import write_atomic, write_json
from simulation.models import finished_model, read_scores
from simulation.plan import ModelPlan

_PREFERENCE = {"federated": 0, "pooled": 1, "local": 2}


def draw_pictures(run: Path, plans: Sequence[ModelPlan], experiment: Experiment, sites: Mapping[str, Site]) -> None:
    """Write `pictures/<site>/case-N.png`, its attention map, and `index.json`,
    for `comparison.pictures` cases a site.
    """
    for name, site in sites.items():
        plan = _model_for(name, plans, seed=experiment.seed)
        rows = chosen_cases(site, count=experiment.comparison.pictures)
        if plan is None or not len(rows):
            continue
        task, model = experiment.task, finished_model(run, plan, experiment)
        scores = read_scores(run, plan, name)[:, task.positive_index]
        folder, index = run / "pictures" / name, []
        pictures = attention_pictures(model, site_crops(site, experiment.crop)[rows])
        for number, (row, (image, attention)) in enumerate(zip(rows, pictures, strict=True), start=1):
            write_atomic(folder / f"case-{number}.png", image)
            write_atomic(folder / f"case-{number}-attention.png", attention)
            index.append(
                {
                    "image": f"case-{number}.png",
                    "attention": f"case-{number}-attention.png",
                    "label": task.classes[int(site.labels[row])],
                    "score": None if scores[row] != scores[row] else float(scores[row]),
                    "model": plan.name,
                }
            )
        write_json(folder / "index.json", index)


def _model_for(site: str, plans: Sequence[ModelPlan], *, seed: int) -> ModelPlan | None:
    """The model of the first seed that never saw `site`, federated before pooled before local; else any that did."""
    mine = [plan for plan in plans if plan.seed == seed]
    return min(mine, key=lambda plan: (site in plan.trained_on, _PREFERENCE[plan.arm]), default=None)
