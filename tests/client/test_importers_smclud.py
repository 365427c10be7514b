"""SMC-LUD made by hand, from the description of the data set alone, with PIL and openpyxl."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openpyxl
import pytest
from PIL import Image

from client.cache import load_crops
from client.importers import ImportSummary, import_site, site_ids
from client.importers.smclud import SHORTCUT_TEST
from client.manifest import load_manifest
from client.site import Site, load_site
from common.config import Crop, ImportOptions
from common.errors import BadInput

CLASSES = ("HCC", "Hemangioma")
SIDES = ("train", "val", "test")
HEADER = ["Image file", "Patient ID", "Age", "Sex", "Height (cm)", "Weight (kg)", "Tumor size (cm)", "pT stage", "Ward"]
PATTERN = r"^(?P<patient>[hm]\d+)_"

Members = dict[str, bytes]


@dataclass(frozen=True)
class Shot:
    """An image by number: patient `number // 2`, on one side of the split; every third image has calipers."""

    number: int

    @property
    def person(self) -> int:
        return self.number // 2

    @property
    def group(self) -> str:
        return CLASSES[self.person % 2]

    @property
    def patient(self) -> str:
        return f"{'hm'[self.person % 2]}{self.person:03d}"

    @property
    def side(self) -> str:
        return SIDES[(0, 0, 0, 1, 2)[self.person // 2 % 5]]

    @property
    def clean(self) -> bool:
        return self.number % 3 != 0

    @property
    def name(self) -> str:
        return f"{self.patient}_{self.number:04d}.png"


SHOTS = [Shot(number) for number in range(60)]
CLEAN = [shot for shot in SHOTS if shot.clean]
CALIPER = [shot for shot in SHOTS if not shot.clean]


def png(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (24, 32), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def smclud(root: str = "SMC-LUD/", *, original: bool = True, split: bool = True) -> Members:
    members = {}
    for shot in SHOTS:
        if original:
            members[f"{root}original_data/{shot.group}/{shot.name}"] = png(shot.number)
        if split:
            members[f"{root}split_for_train/{shot.side}/{shot.group}/{shot.name}"] = png(shot.number)
        if shot.clean:
            members[f"{root}clean_ver_for_train/{shot.side}_clean/{shot.group}/{shot.name}"] = png(shot.number)
    return members


def lines(file: Callable[[Shot], str] = lambda shot: shot.name) -> list[list[object]]:
    """The rows of the patient table, one for each image."""
    found: list[list[object]] = []
    for shot in SHOTS:
        n, hcc = shot.person, shot.group == "HCC"
        found.append([file(shot), shot.patient, 40 + n, "MF"[n % 2], 160 + n, 60.5 + n])
        found[-1] += [2.5 + n / 10 if hcc else None, f"pT{1 + n % 3}" if hcc else None, "B"]
    return found


def as_csv(path: Path, rows: list[list[object]], header: list[str] = HEADER, delimiter: str = ",") -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return str(path)


def as_xlsx(path: Path, rows: list[list[object]]) -> str:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (HEADER, *rows):
        sheet.append(row)
    book.save(path)
    return str(path)


def as_zip(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def as_folder(path: Path, members: Members) -> Path:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def imported(source: Path, parent: Path, **options: str) -> tuple[dict[str, Site], dict[str, ImportSummary]]:
    summaries = import_site("smclud", source, parent, options=ImportOptions(**options))
    return {s.site: load_site(s.folder) for s in summaries}, {s.site: s for s in summaries}


def told(site: Site) -> list[object]:
    return [site.data_sha256, site.images, site.splits, dict(site.covariates), site.role]


def skipped(summary: ImportSummary) -> Counter[str]:
    with (summary.folder / "private/skipped.csv").open(encoding="utf-8") as file:
        return Counter(row["reason"] for row in csv.DictReader(file))


def numbers(site: Site) -> list[int]:
    """Which shots the site's images are, by their pixels."""
    known = {np.asarray(Image.open(io.BytesIO(png(shot.number)))).tobytes(): shot.number for shot in SHOTS}
    return [known[np.asarray(Image.open(site.folder / name)).tobytes()] for name in site.images]


def test_every_case_arrives_as_it_was_made(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "in", smclud())
    table = as_csv(tmp_path / "patients.csv", lines())
    assert site_ids("smclud", source, options=ImportOptions(patients=table)) == ["smc-clean", "smc-caliper"]
    sites, summaries = imported(source, tmp_path / "out", patients=table)
    for name, shots in (("smc-clean", CLEAN), ("smc-caliper", CALIPER)):
        site = sites[name]
        own = numbers(site)
        assert sorted(own) == [shot.number for shot in shots]
        assert (site.task.name, site.task.classes, site.task.positive) == (
            "liver-lesion-malignancy",
            ("hemangioma", "hcc"),
            "hcc",
        )
        assert set(site.boxes) == set(site.masks) == set(site.devices) == {None}
        assert set(site.covariates) == {"age", "sex", "height", "weight", "tumour_size", "pt_stage"}
        assert len(site.pseudonyms) == len({shot.person for shot in shots})
        for row, number in enumerate(own):
            shot, n = SHOTS[number], SHOTS[number].person
            assert site.positive[row] == (shot.group == "HCC")
            assert site.splits[row] == shot.side
            cell = {column: values[row] for column, values in site.covariates.items()}
            known = (float(str(cell["age"])), float(str(cell["height"])), float(str(cell["weight"])), cell["sex"])
            assert known == (40 + n, 160 + n, 60.5 + n, ("male", "female")[n % 2])
            if shot.group == "HCC":
                assert float(str(cell["tumour_size"])) == pytest.approx(2.5 + n / 10)
                assert cell["pt_stage"] == f"pT{1 + n % 3}"
            else:
                assert (cell["tumour_size"], cell["pt_stage"]) == (None, None)
        together = {
            (site.pseudonyms[code], SHOTS[number].person) for code, number in zip(site.patients, own, strict=True)
        }
        assert len(together) == len(site.pseudonyms)
        assert load_crops(site, Crop(size=16, region="frame")).shape == (len(site), 16, 16)
        assert any("tumour_size and pt_stage: known for HCC only" in note for note in summaries[name].notes)
    assert sum(summaries["smc-clean"].splits.values()) == 40
    with pytest.raises(BadInput, match=r'neither box nor mask; .*crop.region = "frame"'):
        load_crops(sites["smc-clean"], Crop(size=16))


def test_caliper_is_held_out_and_names_the_shortcut_test(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "in", smclud())
    sites, summaries = imported(source, tmp_path / "out", pattern=PATTERN)
    assert (sites["smc-clean"].role, sites["smc-caliper"].role) == ("train", "held-out")
    assert len(sites["smc-caliper"].rows("test")) == len(CALIPER)
    assert len(sites["smc-caliper"].rows("train")) == 0
    assert load_manifest(tmp_path / "out/smc-caliper").purpose == SHORTCUT_TEST == "caliper-shortcut"
    assert load_manifest(tmp_path / "out/smc-clean").purpose is None
    both = {s.person for s in CALIPER} & {s.person for s in CLEAN if s.side != "test"}
    people = len({shot.person for shot in CALIPER})
    assert any(
        f"{len(both)} of {people} patients also have images on" in note for note in summaries["smc-caliper"].notes
    )
    assert set(sites["smc-caliper"].pseudonyms) & set(sites["smc-clean"].pseudonyms)


def test_zips_folders_tables_and_pattern_are_one(tmp_path: Path) -> None:
    members = smclud()
    folder = as_folder(tmp_path / "in", members)
    first, _ = imported(folder, tmp_path / "out", patients=as_csv(tmp_path / "t.csv", lines()))
    ways = [
        (folder / "SMC-LUD", as_xlsx(tmp_path / "t.xlsx", lines())),
        (
            as_zip(tmp_path / "a.zip", dict(reversed(members.items()))),
            as_csv(tmp_path / "u.csv", lines(), delimiter=";"),
        ),
        (
            as_zip(tmp_path / "b.zip", smclud("")),
            as_csv(tmp_path / "v.csv", lines(lambda shot: shot.name[:-4].upper())),
        ),
        (folder, as_csv(tmp_path / "w.csv", lines(lambda shot: rf"D:\x\{shot.group}\{shot.name}"))),
    ]
    for n, (source, table) in enumerate(ways):
        sites, summaries = imported(source, tmp_path / f"out{n}", patients=table)
        assert [told(site) for site in sites.values()] == [told(site) for site in first.values()]
        assert not any(skipped(summary) for summary in summaries.values())
    bare, _ = imported(folder, tmp_path / "bare", pattern=PATTERN)
    assert [site.data_sha256 for site in bare.values()] == [site.data_sha256 for site in first.values()]
    without_files = as_csv(tmp_path / "y.csv", [row[1:] for row in lines()[::2]], HEADER[1:])
    joined, _ = imported(folder, tmp_path / "joined", pattern=PATTERN, patients=without_files)
    assert [told(site) for site in joined.values()] == [told(site) for site in first.values()]


def test_where_names_differ_content_tells_what_is_clean(tmp_path: Path) -> None:
    members = smclud()
    for number, name in enumerate([name for name in members if "/original_data/" in name]):
        members[f"SMC-LUD/original_data/{name.split('/')[2]}/IMG{number}.png"] = members.pop(name)
    sites, summaries = imported(as_folder(tmp_path / "in", members), tmp_path / "out")
    assert sorted(numbers(sites["smc-caliper"])) == [shot.number for shot in CALIPER]
    sides = {
        SHOTS[number].side == side
        for number, side in zip(numbers(sites["smc-caliper"]), sites["smc-caliper"].splits, strict=True)
    }
    assert sides == {True}
    assert not any("official split" in note for note in summaries["smc-caliper"].notes)


def test_a_name_that_a_class_has_twice_tells_nothing(tmp_path: Path) -> None:
    """Clean counts anew on each side, original_data through: only content can join them."""
    members, count = smclud(split=False), Counter[tuple[str, str]]()
    for name in [name for name in members if "clean_ver" in name]:
        *folders, _ = name.split("/")
        count[folders[-2], folders[-1]] += 1
        members["/".join((*folders, f"{count[folders[-2], folders[-1]]}.png"))] = members.pop(name)
    for group in CLASSES:
        own = [name for name in members if "original_data" in name and f"/{group}/" in name]
        for number, name in enumerate(own, start=1):
            members[f"SMC-LUD/original_data/{group}/{number}.png"] = members.pop(name)
    once = [
        f"{group}/{n}.png"
        for group in CLASSES
        for n in range(1, 30)
        if sum(f"{group}/{n}.png" in f"{name}" for name in members if "clean_ver" in name) == 1
    ]
    for name in [name for name in members if "clean_ver" in name and name.split("/", 3)[3] in once]:
        members[name.replace(".png", "x.png")] = members.pop(name)
    sites, _ = imported(as_folder(tmp_path / "in", members), tmp_path / "out")
    assert sorted(numbers(sites["smc-caliper"])) == [shot.number for shot in CALIPER]


def test_another_file_under_a_clean_name_is_said(tmp_path: Path) -> None:
    members = smclud(split=False)
    members[f"SMC-LUD/original_data/{CLEAN[0].group}/{CLEAN[0].name}"] = png(500) + b"more"
    _, summaries = imported(as_folder(tmp_path / "in", members), tmp_path / "out", pattern=PATTERN)
    assert any(note.startswith("1 images bear the class and name") for note in summaries["smc-caliper"].notes)


def test_without_the_split_folder_a_patient_keeps_its_side(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "in", smclud(split=False))
    sites, summaries = imported(source, tmp_path / "out", pattern=PATTERN)
    site = sites["smc-caliper"]
    seen = {shot.person for shot in CLEAN}
    expected = [SHOTS[n].side if SHOTS[n].person in seen else "test" for n in numbers(site)]
    assert list(site.splits) == expected
    assert any("20 images are in no official split" in note for note in summaries["smc-caliper"].notes)
    split_alone, _ = imported(as_folder(tmp_path / "split", smclud(original=False)), tmp_path / "o2", pattern=PATTERN)
    assert sorted(numbers(split_alone["smc-caliper"])) == [shot.number for shot in CALIPER]
    clean_alone = as_folder(tmp_path / "clean", smclud(original=False, split=False))
    assert site_ids("smclud", clean_alone) == ["smc-clean"]


def test_without_table_and_pattern_each_image_is_a_patient(tmp_path: Path) -> None:
    sites, summaries = imported(as_folder(tmp_path / "in", smclud()), tmp_path / "out")
    for name, site in sites.items():
        assert len(site.pseudonyms) == len(site) == summaries[name].patients
        assert any(
            "each image counts as a patient: splits and intervals are per image" in n for n in summaries[name].notes
        )


def test_a_patient_on_two_official_sides(tmp_path: Path) -> None:
    members = smclud()
    shot = next(shot for shot in CLEAN if shot.side == "train" and Shot(shot.number ^ 1).clean)
    name = f"SMC-LUD/clean_ver_for_train/train_clean/{shot.group}/{shot.name}"
    members[name.replace("train_clean", "val_clean")] = members.pop(name)
    source = as_folder(tmp_path / "in", members)
    sides = r"\((train|val) here, (train|val) at archive smclud"
    says = r"^archive smclud, member \d+: a patient on two sides of the split " + sides
    with pytest.raises(BadInput, match=says) as caught:
        import_site("smclud", source, tmp_path / "out", options=ImportOptions(pattern=PATTERN))
    assert shot.patient not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    members = smclud()
    members["SMC-LUD/readme.txt"] = members["SMC-LUD/.DS_Store"] = members["__MACOSX/._a.png"] = b"x"
    members["SMC-LUD/original_data/Cyst/a.png"] = members["SMC-LUD/original_data/HCC/Hemangioma/b.png"] = png(1)
    members["SMC-LUD/split_for_train/HCC/c.png"] = members["SMC-LUD/elsewhere/HCC/d.png"] = png(1)
    rows = lines()
    gone = rows.pop(CLEAN[0].number)
    rows.append(["nowhere.png", *gone[1:]])
    rows.append(["", "p9", *gone[2:]])
    table = as_csv(tmp_path / "t.csv", rows)
    sites, summaries = imported(as_folder(tmp_path / "in", members), tmp_path / "out", patients=table)
    assert len(sites["smc-clean"]) == len(CLEAN) - 1
    assert skipped(summaries["smc-clean"]) == {
        "a hidden file": 2,
        "not an image of SMC-LUD": 2,
        "its folders name no class": 1,
        "its folders name two classes": 1,
        "its folders name no side of the split": 1,
        "no row of the patient table names it": 1,
        "no image of it is taken": 1,
    }
    sites, summaries = imported(tmp_path / "in", tmp_path / "two", pattern=r"^(?P<patient>h\d+)_")
    assert set(sites["smc-clean"].labels.tolist()) == {1}
    assert skipped(summaries["smc-clean"])["the pattern is not in its name"] == sum(s.group != "HCC" for s in SHOTS)


def test_no_name_or_patient_leaves_private(tmp_path: Path) -> None:
    table = as_csv(tmp_path / "t.csv", lines())
    imported(as_folder(tmp_path / "in", smclud("Köln root/")), tmp_path / "out", patients=table)
    traces = [shot.name.encode() for shot in SHOTS] + [shot.patient.encode() + b"," for shot in SHOTS]
    traces += ["Köln root".encode(), b"original_data", b"split_for", b"clean_ver", b"Hemangioma", b"HCC/", b"t.csv"]
    for path in (tmp_path / "out").rglob("*"):
        assert not any(trace in str(path.relative_to(tmp_path)).encode() for trace in traces)
        if path.is_file() and "private" not in path.parts:
            assert not any(trace in path.read_bytes() for trace in traces), path.name


def test_a_new_key_renames_patients_and_moves_none(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "in", smclud())
    (one, _), (two, _) = (imported(source, tmp_path / name, pattern=PATTERN) for name in ("one", "two"))
    assert [told(site) for site in one.values()] == [told(site) for site in two.values()]
    assert not set(one["smc-clean"].pseudonyms) & set(two["smc-clean"].pseudonyms)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(", r"no regular expression \(missing \) at position 1\); correct it, such as \(\?P<patient>"),
        ("(" * 900, "no regular expression"),
        (r"(\d+)_", "no group called patient; name one"),
        ("x" * 2000, "longer than 1000 characters"),
        (r"^(?P<patient>(\w|\w\w|[a-z0-9_])+)$(?<=!)", "not done with its name after 1 s"),
        (
            r"(?P<patient>nobody)",
            "none of its 40 clean images has a patient; the pattern is searched for in file names",
        ),
    ],
)
def test_a_pattern_that_cannot_serve(tmp_path: Path, pattern: str, says: str) -> None:
    members = smclud(original=False, split=False)
    long = f"SMC-LUD/clean_ver_for_train/train_clean/HCC/{'a' * 60}.png"
    members = {long: png(0), **members} if "(?<=" in pattern else members
    source = as_folder(tmp_path / "in", members)
    with pytest.raises(BadInput, match=says) as caught:
        import_site("smclud", source, tmp_path / "out", options=ImportOptions(pattern=pattern))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def without(*columns: str) -> list[str]:
    return [f"x{place}" if name in columns else name for place, name in enumerate(HEADER)]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (
            without("Image file"),
            r"none of its 9 columns is the file name \(found: .*pt_stage, patient\); expected `file`",
        ),
        (without("Patient ID"), r"none of its 9 columns is the patient \(found: age, .*, file\); expected"),
        ([f"h{n:03d}_name" for n in range(9)], r"none of its 9 columns is the patient \(found: nothing known\)"),
        (["Image", "Image name", *HEADER[2:]], "two columns could be the file; rename one"),
    ],
)
def test_a_table_without_the_columns(tmp_path: Path, header: list[str], says: str) -> None:
    source = as_folder(tmp_path / "in", smclud(split=False))
    table = as_csv(tmp_path / "t.csv", lines(), header)
    with pytest.raises(BadInput, match=f"^patient table: {says}") as caught:
        import_site("smclud", source, tmp_path / "out", options=ImportOptions(patients=table))
    assert not any(shot.patient in str(caught.value) for shot in SHOTS)
    assert not (tmp_path / "out").exists()


def test_tables_that_cannot_serve(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "in", smclud(split=False))
    (tmp_path / "broken.xlsx").write_bytes(b"PK no")
    (tmp_path / "empty.csv").write_bytes(b"")
    rows = lines()
    twice = as_csv(tmp_path / "twice.csv", [*rows, [rows[1][0], "somebody else", *rows[1][2:]]])
    other = as_csv(tmp_path / "other.csv", lines(lambda shot: f"x{shot.number}.png"))
    for table, says in (
        (
            str(tmp_path / "absent.csv"),
            r"^the patient table cannot be read \(No such file or directory\); give a csv or",
        ),
        (str(tmp_path), r"^the patient table cannot be read \(Is a directory\)"),
        (str(tmp_path / "broken.xlsx"), "^patient table: not an Excel file"),
        (str(tmp_path / "empty.csv"), "^patient table: the table is empty"),
        (twice, r"rows 3 and 62 of the patient table name it, with different patients; write more of its path"),
        (other, "none of its 40 clean images has a patient; the table's file column must hold the images' file names"),
    ):
        with pytest.raises(BadInput, match=says):
            import_site("smclud", source, tmp_path / "out", options=ImportOptions(patients=table))
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("members", [{}, {"readme.txt": b"x"}, {"original_data/HCC/1.png": b"x"}])
def test_what_is_not_smclud(tmp_path: Path, members: Members) -> None:
    with pytest.raises(BadInput, match=rf"none of its {len(members)} files fits; expected clean_ver_for_train/"):
        import_site("smclud", as_zip(tmp_path / "a.zip", members), tmp_path / "out")
    with pytest.raises(BadInput, match="no such file or folder; give the zip or folder that holds clean_ver_for_train"):
        import_site("smclud", tmp_path / "absent", tmp_path / "out")


def test_a_damaged_image_is_named_by_number_and_nothing_is_written(tmp_path: Path) -> None:
    members = smclud()
    name = next(name for name in members if "clean_ver" in name)
    members[name] = members[name][:100]
    with pytest.raises(BadInput, match=r"^archive smclud, member \d+: truncated or damaged PNG"):
        import_site("smclud", as_zip(tmp_path / "a.zip", members), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_name_in_both_classes_needs_its_folder(tmp_path: Path) -> None:
    """Numbers begin anew in each class; a table that says HCC/1.png tells them apart,
    one of patients' names is warned.
    """
    members, rows = {}, []
    for n in range(1, 13):
        for group in CLASSES:
            side = SIDES[n % 3]
            members[f"clean_ver_for_train/{side}_clean/{group}/{n}_1.png"] = png(n + 100 * (group == "HCC"))
            rows.append([f"{group}/{n}_1.png", f"{group}-{n}", 50])
    source = as_folder(tmp_path / "in", members)
    table = as_csv(tmp_path / "t.csv", rows, ["file", "patient", "age"])
    sites, _ = imported(source, tmp_path / "out", patients=table)
    assert len(sites["smc-clean"].pseudonyms) == 24
    sites, summaries = imported(source, tmp_path / "two", pattern=r"(?P<patient>\d+)_")
    assert len(sites["smc-clean"].pseudonyms) == 12
    assert any(note.startswith("12 patients have images of both classes") for note in summaries["smc-clean"].notes)
    bare = as_csv(tmp_path / "u.csv", [[row[0].split("/")[1], *row[1:]] for row in rows], ["file", "patient", "age"])
    with pytest.raises(BadInput, match="with different patients; write more of its path there, such as HCC/"):
        imported(source, tmp_path / "three", patients=bare)
