"""Ultrasound DICOM: frames, covariates, splits, labels, and what is left out."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from client.importers import import_site
from client.importers.archive import MAX_MEMBER_BYTES
from client.site import load_site
from common.config import ImportOptions
from common.errors import BadInput
from tests.client import dicom_files as made
from tests.client.dicom_files import picture, region, screen, tissue, written
from tests.client.dicom_imports import OPTIONS, folder, imported, other, reasons, stored


def test_a_loop_gives_five_frames_with_the_middle_one(tmp_path: Path) -> None:
    cine = np.stack([screen(seed) for seed in range(21)])
    site, summary = imported(
        tmp_path,
        {"a/x": picture(cine, frames=21), "a/short": picture(cine[:3], frames=3, PatientID="P2"), "b/y": other()},
    )
    first = [row for row in range(len(site)) if site.patients[row] == 1]
    for row, frame in zip(first, [2, 6, 10, 14, 18], strict=True):
        assert np.array_equal(stored(site, row), tissue(cine[frame]))
    assert (summary.images, summary.patients, len(first)) == (9, 3, 5)
    assert reasons(site) == ["16 of its 21 frames; 5 are taken"]


def test_covariates_and_device(tmp_path: Path) -> None:
    site, _ = imported(
        tmp_path,
        {
            "a/1": picture(screen(1), PatientAge="045Y", PatientSex="F"),
            "a/2": picture(screen(2), PatientAge="006M", PatientSex="M", PatientID="P2"),
            "a/3": picture(screen(3), PatientAge="old", PatientSex="secret", PatientID="P3"),
            "b/4": other(SequenceOfUltrasoundRegions=[region(cm=0.02)], Manufacturer="Doe of Acme"),
        },
    )
    assert site.covariates["age"] == ("45", "0.5", None, None)
    assert site.covariates["sex"] == ("F", "M", None, None)
    assert site.covariates["spacing_mm"] == ("0.125", "0.125", "0.125", "0.2")
    assert site.devices == ("Acme Scan 7", "Acme Scan 7", "Acme Scan 7", None)


def film() -> Dataset:
    return made.encapsulated(picture(screen(1)), "1.2.840.10008.1.2.4.102", [b"xx"])


def test_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    no_text = {"SequenceOfUltrasoundRegions": None}
    site, summary = imported(
        tmp_path,
        {
            "a/good": picture(screen(1)),
            "a/clean": picture(screen(2), BurnedInAnnotation="NO", **no_text),
            "a/ct": picture(screen(1), Modality="CT"),
            "a/nobody": picture(screen(1), PatientID=None),
            "a/blank": picture(screen(1), PatientID=" "),
            "a/no regions": picture(screen(1), **no_text),
            "a/only doppler": picture(screen(1), SequenceOfUltrasoundRegions=[region(form=3)]),
            "a/whole": picture(
                screen(1), SequenceOfUltrasoundRegions=[region((0, 0, 59, 39))], BurnedInAnnotation="YES"
            ),
            "a/volume": picture(screen(1), SOPClassUID="1.2.840.10008.5.1.4.1.1.6.2"),
            "a/film": film(),
            "a/young": written(film()).replace(b".10008.1.2.4.102", b".10008.1.2.4.112"),
            "a/own": written(film()).replace(b".10008.1.2.4.102", b".113619.5.4.1990"),
            "a/deep": made.encapsulated(picture(screen(1).astype(np.uint16)), "1.2.840.10008.1.2.4.51", [b"xx"]),
            "a/huge": picture(screen(1), Rows=16000, Columns=16000),
            "a/report.pdf": b"%PDF",
            "a/.hidden": b"",
            "loose": other(),
            "b/other": other(),
        },
    )  # fmt: skip
    assert (summary.images, summary.skipped) == (3, 15)
    assert np.array_equal(stored(site, 0), screen(2))
    found = " | ".join(reasons(site))
    for said, count in {
        "not ultrasound": 1, "no PatientID": 2, "no 2D tissue region": 2, "region is the whole picture": 1,
        "3D volume": 1, "syntax, MPEG-4 AVC/H.264 High Profile / Level 4.1, is not read": 1,
        "syntax, 1.2.840.10008.1.2.4.112, is not": 1, "syntax, which the standard does not know, is not read": 1,
        "JPEG Extended (Process 2 and 4), is read up to 8": 1, "pixels in a frame": 1, "not a DICOM file": 1,
        "hidden": 1, "in no class folder": 1,
    }.items():  # fmt: skip
        assert found.count(said) == count, said


def test_a_file_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    """As a hole on disk it takes no room, in a zip hardly any."""
    files = {"a/x": picture(screen(1)), "b/y": other()}
    source = folder(tmp_path / "in", files)
    with (source / "a/loop").open("wb") as file:
        file.write(written(picture(screen(2), PatientID="P2")))
        file.truncate(MAX_MEMBER_BYTES + 1)
    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(source.rglob("?/*")):
            archive.write(path, path.relative_to(source))
    for name, place in (("folder", source), ("zip", tmp_path / "in.zip")):
        (summary,) = import_site("dicom", place, tmp_path / name, options=OPTIONS)
        assert (summary.images, summary.patients, summary.skipped) == (2, 2, 1)
        assert reasons(load_site(summary.folder)) == ["larger than 256 MiB; export fewer frames"]


def test_split_folders_and_a_zip_with_a_folder_around(tmp_path: Path) -> None:
    files = {
        f"export/{side}/{label}/{n}.dcm": picture(screen(n), PatientID=f"{side}{label}{n}")
        for side in ("train", "val", "test")
        for label in ("a", "b")
        for n in range(2)
    }
    site, _ = imported(tmp_path, files)
    assert [sum(side == name for side in site.splits) for name in ("train", "val", "test")] == [4, 4, 4]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in sorted((tmp_path / "in").rglob("*.dcm")):
            archive.write(path, path.relative_to(tmp_path / "in"))
    import_site("dicom", tmp_path / "x.zip", tmp_path / "zipped", options=OPTIONS)
    assert load_site(tmp_path / "zipped/our-clinic").data_sha256 == site.data_sha256


@pytest.mark.parametrize("key", ["sop_instance_uid", "file", "patient_id"])
def test_labels_from_a_table(tmp_path: Path, key: str) -> None:
    files = {f"study{n}/IM{n}": picture(screen(n), PatientID=f"P{n}") for n in range(5)}
    names = {
        "sop_instance_uid": [str(file.SOPInstanceUID) for file in files.values()],
        "file": list(files),
        "patient_id": [f"P{n}" for n in range(5)],
    }[key]
    lines = [f"{key},label", *(f"{name},{'xy'[n % 2]}" for n, name in enumerate(names[:4]))]
    site, _ = imported(tmp_path, {**files, "labels.csv": "\n".join(lines).encode()})
    assert [site.task.classes[label] for label in site.labels] == ["x", "y", "x", "y"]
    assert reasons(site) == ["no row of labels.csv names it"]


def twice(label: str) -> dict[str, Dataset | bytes]:
    same = written(picture(screen(1)))
    return {"a/1": same, f"{label}/2": same, "b/3": other()}


def test_the_same_picture_twice(tmp_path: Path) -> None:
    site, _ = imported(tmp_path, twice("a"))
    assert reasons(site) == ["the picture of member 1 once more"]
    with pytest.raises(BadInput, match=r"member 2: the picture of member 1 under another label"):
        import_site("dicom", folder(tmp_path / "other", twice("b")), tmp_path / "out2", options=OPTIONS)


def test_options_that_cannot_be(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", {"a/x": picture(screen(1)), "b/y": other()})
    for options, says in (
        (ImportOptions(), "needs the site's id; give --site"),
        (ImportOptions(site="../up"), "is no id"),
        (ImportOptions(site="s", task="lump:c"), "'c' is no class"),
        (ImportOptions(site="s", pattern="x"), "takes no --pattern"),
    ):
        with pytest.raises(BadInput, match=says):
            import_site("dicom", source, tmp_path / "out", options=options)
    import_site("dicom", source, tmp_path / "out", options=ImportOptions(site="s", task="lump:a"))
    task = load_site(tmp_path / "out/s").task
    assert (task.name, task.classes, task.positive) == ("lump", ("a", "b"), "a")


def test_folders_of_patients_are_no_classes(tmp_path: Path) -> None:
    files = {f"{name}/x": picture(screen(n), PatientID=f"P{n}") for n, name in enumerate("vwxyz")}
    with pytest.raises(BadInput, match="its folders are patients, not classes"):
        import_site("dicom", folder(tmp_path / "in", files), tmp_path / "out", options=OPTIONS)
