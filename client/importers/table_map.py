"""Any table with a map (client/importers/column_map.py): a hospital's own CSV becomes one site, or one per named site.

A row is a case: an image, or one of several boxes in it. A row whose file is not there, that has no label, or that
names an image and box again, is left out. The table is read row by row: what stays in memory grows with the images that
are there, not with the rows.
"""

from __future__ import annotations

__all__ = ["mapped_table"]

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from client.box import Box
from client.importers.case import Case, Collection
from client.importers.column_map import ColumnMap, load_map
from client.importers.mapped_cells import box_of, check_formulas, label_of, side_of, typed_covariates
from client.importers.named_file import NamedFile, find_file
from client.importers.site_ids import as_site_id, given_site_id
from client.importers.splits import completed_split
from client.importers.spool import Spool
from client.importers.table import Row, stream_csv
from common.config import ImportOptions
from common.errors import BadInput
from common.tasks import Task

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
_MAX_CLASSES = 100
_MAX_SITES = 1000
_NO_PATIENT = (
    "no patient column in the map: each image counts as a patient of its own, so splits and intervals are per image, "
    "and too good where a patient has several images"
)


@contextmanager
def mapped_table(source: Path, options: ImportOptions) -> Iterator[list[Collection]]:
    """The sites of the table `source`, in order of first appearance. Raises BadInput."""
    told = load_map(options.map)
    if told.site is not None and options.site is not None:
        raise BadInput("the map names a column of sites; leave --site out, or take `site` out of the map")
    alone = given_site_id(options.site, format="csv") if told.site is None else None
    if not source.is_file():
        raise BadInput(f"{source}: no such file; give the CSV table, with its images below the same folder")
    with Spool() as left_out:
        taken = _Taken(source.parent, told, alone, left_out)
        for row in stream_csv(
            source, where="table", columns=told.columns, delimiter=told.delimiter, encoding=told.encoding
        ):
            taken.add(row)
        yield _collections(taken, told, options.task)


class _Taken:
    """The cases that were found so far, by image and box, and what each column of sites calls them."""

    def __init__(self, root: Path, told: ColumnMap, alone: str | None, left_out: Spool) -> None:
        self.root, self.told, self.alone, self.left_out = root, told, alone, left_out
        self.cases: dict[tuple[str, Box | None], Case] = {}
        self.sites: dict[tuple[str, Box | None], str] = {}
        self.contradictions = 0
        self._names: dict[str, str] = {}

    def add(self, row: Row) -> None:
        """Take a row, or note why not. Raises BadInput."""
        where = f"table row {row.number}"
        image = find_file(self.root, row.values.get(self.told.image, ""), where=where)
        if image is None:
            self.left_out.add(where, "no such image")
            return
        check_formulas(row, self.told.columns, where=where)
        label = label_of(row, self.told, where=where)
        named = row.values.get(self.told.mask, "") if self.told.mask is not None else ""
        mask = find_file(self.root, named, where=where) if named else None
        if not label or (named and mask is None):
            self.left_out.add(where, "no label" if not label else "no such mask")
            return
        self._keep(self._case(row, image, mask, label), self._site(row, where))

    def _case(self, row: Row, image: NamedFile, mask: NamedFile | None, label: str) -> Case:
        told, values, where = self.told, row.values, image.where
        patient = values.get(told.patient, "") if told.patient is not None else str(image.path)
        if not patient:
            raise BadInput(f"{where}: no patient; every image belongs to one")
        return Case(
            image=image,
            mask=mask,
            patient=patient,
            label=label,
            where=where,
            box=box_of(row, told.box_columns, where=where),
            split=side_of(row, told.split, where=where),
            device=(values.get(told.device) or None) if told.device is not None else None,
            covariates={name: values.get(name, "") for name in told.covariates},
        )

    def _site(self, row: Row, where: str) -> str:
        if self.told.site is None:
            return str(self.alone)
        name = row.values.get(self.told.site, "")
        site = as_site_id(name, where=where)
        if self._names.setdefault(site, name) != name:
            raise BadInput(
                f"{where}: its site and an earlier one would both be called {site}; spell them alike, or apart"
            )
        if len(self._names) > _MAX_SITES:
            raise BadInput(f"{where}: more than {_MAX_SITES} sites; is {self.told.site!r} the column of sites?")
        return site

    def _keep(self, case: Case, site: str) -> None:
        key = (str(case.image.path), case.box)
        first = self.cases.setdefault(key, case)
        if first is case:
            self.sites[key] = site
            return
        differs = (first.label, first.patient, first.split, self.sites[key]) != (
            (case.label, case.patient, case.split, site)
        )
        self.contradictions += differs
        but = ", and says something else of it" if differs else ""
        self.left_out.add(case.where, f"names the image and box of {first.where} again{but}")


def _collections(taken: _Taken, told: ColumnMap, task_name: str | None) -> list[Collection]:
    if not taken.cases:
        raise BadInput(f"table: none of {len(taken.left_out)} rows names an image that is there, with a label")
    found = list(taken.cases.values())
    typed, kinds = typed_covariates({case.where: case.covariates for case in found}, told)
    cases = [replace(case, covariates=values) for case, values in zip(found, typed, strict=True)]
    task = _task(cases, told, task_name)
    cases, notes = completed_split(cases)
    notes = [*notes, *_notes(taken, told)]
    by_site: dict[str, list[Case]] = {}
    for case, site in zip(cases, taken.sites.values(), strict=True):
        by_site.setdefault(site, []).append(case)
    _check_patients(by_site)
    if len(by_site) > 1 and len(taken.left_out):
        notes.append(f"rows left out of all sites are listed at {next(iter(by_site))}")
    return [
        Collection(
            site=site,
            task=task,
            namespace="csv",
            cases=tuple(own),
            covariates=kinds,
            skipped=taken.left_out if place == 0 else (),
            image_formats=_FORMATS,
            mask_formats=_FORMATS,
            notes=tuple(notes) if place == 0 else (),
        )
        for place, (site, own) in enumerate(by_site.items())
    ]


def _task(cases: Sequence[Case], told: ColumnMap, name: str | None) -> Task:
    """The classes of the map in its order, or the labels of the table, sorted; the positive one, else the last."""
    if isinstance(told.label, str):
        classes = tuple(sorted({case.label for case in cases}))
    else:
        classes = tuple(dict.fromkeys(told.label.classes.values()))
    if not 2 <= len(classes) <= _MAX_CLASSES:
        raise BadInput(
            f"table: {told.label_column!r} gives {len(classes)} different labels; 2 to {_MAX_CLASSES} make a task"
        )
    if told.positive is not None and told.positive not in classes:
        raise BadInput(f"map: positive: {told.positive!r} is the class of no image; name a class as the map spells it")
    return Task(name or told.label_column, classes, told.positive or classes[-1])


def _notes(taken: _Taken, told: ColumnMap) -> Iterator[str]:
    if told.patient is None:
        yield _NO_PATIENT
    if taken.contradictions:
        yield f"{taken.contradictions} rows name an image again and contradict its first row, which was taken"


def _check_patients(by_site: dict[str, list[Case]]) -> None:
    """Raise BadInput where a patient is at two sites: leaving one center out would then leave its patients in."""
    homes: dict[str, tuple[str, str]] = {}
    for site, cases in by_site.items():
        for case in cases:
            home, first = homes.setdefault(case.patient, (site, case.where))
            if home != site:
                raise BadInput(
                    f"{case.where}: a patient at two sites ({home} in {first}, {site} here); keep one of them, or, "
                    "where each site counts its patients anew, put the site's name before the number"
                )
