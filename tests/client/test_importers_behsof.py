"""BEHSOF made by hand, from the description of the data set alone, with PIL and openpyxl."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import pyzipper
from PIL import Image

from client.__main__ import main
from client.cache import load_crops
from client.importers import ImportSummary, import_site, site_ids
from client.site import Site, load_site
from common.config import Crop, ImportOptions
from common.errors import BadInput
from tests.client.zipcrypto import write_zipcrypto

HEADER = [
    *["Patient ID", "sex", "Age", "AST (SGOT)", "ALT (SGPT)", "Platelets", "GGT", "Cholestrol", "Hypertension"],
    *["BMI", "CAP score", "E score", "Steatosis stage", "Fibroscan S", "Fibroscan F", "Reader", "Visit date"],
]
SEXES = ("M", "F")

Members = dict[str, bytes]
Row = dict[str, object]


class Person:
    """A person by number: the grades are 0 to 3, 0 to 3 and 0 to 2;
    at TAL images lie in a folder for each acquisition.
    """

    def __init__(self, site: str, number: int) -> None:
        self.site, self.number = site, number
        self.grades = (number % 4, (number // 2) % 4, number % 3)
        self.id = f"{site}{number:02d}" + "".join(str(grade) for grade in self.grades)
        self.images = 1 + number % 3

    def paths(self) -> list[str]:
        folder = f"image_Data/{self.id}"
        if self.site == "TAL":
            return [f"{folder}/02_07_2022_12_49_{20 + k}/Image.jpg" for k in range(self.images)]
        return [f"{folder}/Image{k}.jpg" for k in range(self.images)]

    def row(self) -> Row:
        n = self.number
        values = [f"\\Data\\{self.id}", SEXES[n % 2], 30 + n, 20.5 + n, 18 + n, 200 + n, 30, 4.5 + n / 10, n % 2]
        values += [
            f"{22 + n / 4}",
            200 + 30 * self.grades[1],
            4.0 + self.grades[2],
            *self.grades,
            "Dr. Nobody",
            "7/2/2022",
        ]
        return dict(zip(HEADER, values, strict=True))


PEOPLE = [Person("TAL", n) for n in range(1, 8)] + [Person("BEH", n) for n in range(1, 16)]


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (6, 8), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)


def jpeg(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "Nameless of Hospital X"
    Image.fromarray(pixels).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


def as_csv(rows: Iterable[Row], header: list[str] = HEADER, delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, delimiter=delimiter, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return (text.getvalue() + delimiter * (len(header) - 1) + "\r\n").encode("utf-8-sig")


def as_xlsx(rows: Iterable[Row]) -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(HEADER)
    for row in rows:
        sheet.append([row[name] for name in HEADER])
    sheet.append([" "] * 3)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def rows_of(people: Iterable[Person] = PEOPLE) -> list[Row]:
    return [person.row() for person in people]


def behsof(rows: list[Row] | None = None, *, people: Iterable[Person] = PEOPLE, root: str = "") -> Members:
    """The files by name; the table is made of `rows`, else of the people's own."""
    members = {}
    for person in people:
        for k, path in enumerate(person.paths()):
            members[root + path] = jpeg(picture(1000 * (person.site == "TAL") + 10 * person.number + k))
    return {**members, f"{root}Demo_data.csv": as_csv(rows_of(people) if rows is None else rows)}


def as_zip(path: Path, members: Members) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def as_folder(path: Path, members: Members) -> Path:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def imported(source: Path, parent: Path, **options: str) -> tuple[dict[str, Site], dict[str, ImportSummary]]:
    summaries = import_site("behsof", source, parent, options=ImportOptions(**options))
    return {s.site: load_site(s.folder) for s in summaries}, {s.site: s for s in summaries}


def told(site: Site) -> list[object]:
    return [site.data_sha256, site.images, site.splits, dict(site.covariates), site.task]


def private(summary: ImportSummary, name: str) -> list[dict[str, str]]:
    with (summary.folder / "private" / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


GRADE_TASKS = {"steatosis": 0, "steatosis-cap": 1, "fibrosis": 2}
BINARY_TASKS = {
    "steatosis-s1": (0, 1, ("s0", "s1-s3")),
    "steatosis-s2": (0, 2, ("s0-s1", "s2-s3")),
    "steatosis-cap-s1": (1, 1, ("s0", "s1-s3")),
    "steatosis-cap-s2": (1, 2, ("s0-s1", "s2-s3")),
    "fibrosis-f1": (2, 1, ("f0", "f1-f4")),
    "fibrosis-f2": (2, 2, ("f0-f1", "f2-f4")),
}


def test_every_case_arrives_as_it_was_made(tmp_path: Path) -> None:
    assert site_ids("behsof", as_folder(tmp_path / "in", behsof())) == ["tal", "beh"]
    sites, summaries = imported(tmp_path / "in", tmp_path / "out")
    for name, site in sites.items():
        people = [person for person in PEOPLE if person.site.lower() == name]
        cases = [(person, k) for person in people for k in range(person.images)]
        assert len(site) == len(cases) == summaries[name].images
        assert len(site.pseudonyms) == len(people) == summaries[name].patients
        assert (site.task.name, site.task.positive, site.role) == ("steatosis-s2", "s2-s3", "train")
        assert set(site.devices) == {None}
        assert set(site.boxes) == set(site.masks) == {None}
        assert set(site.covariates) == {
            *["sex", "age", "ast_sgot", "alt_sgpt", "platelets", "ggt", "cholesterol", "hypertension", "bmi", "reader"]
        }
        for row, (person, k) in enumerate(cases):
            n = person.number
            assert site.positive[row] == (person.grades[0] >= 2)
            assert people[site.patients[row]] is person
            pixels = np.asarray(Image.open(site.folder / site.images[row])).astype(int)
            assert np.abs(pixels - picture(1000 * (person.site == "TAL") + 10 * n + k)).max() < 12
            cell = {column: values[row] for column, values in site.covariates.items()}
            assert cell["sex"] == ("male", "female")[n % 2]
            assert cell["hypertension"] == ("no", "yes")[n % 2]
            known = {"age": 30 + n, "ast_sgot": 20.5 + n, "alt_sgpt": 18 + n, "platelets": 200 + n, "ggt": 30}
            for column, value in {**known, "cholesterol": 4.5 + n / 10, "bmi": 22 + n / 4}.items():
                assert float(str(cell[column])) == pytest.approx(value)
        assert summaries[name].classes["s2-s3"] == int(site.positive.sum())
        sides = [{int(code) for code in site.patients[site.rows(side)]} for side in ("train", "val", "test")]
        assert sum(len(side) for side in sides) == len(people)


@pytest.mark.parametrize("task", [*GRADE_TASKS, *BINARY_TASKS])
def test_the_labels_of_every_task(tmp_path: Path, task: str) -> None:
    sites, _ = imported(as_folder(tmp_path / "in", behsof()), tmp_path / "out", task=task)
    for name, site in sites.items():
        people = [person for person in PEOPLE if person.site.lower() == name]
        labels = [site.task.classes[label] for label in site.labels]
        if task in GRADE_TASKS:
            place = GRADE_TASKS[task]
            letter, top = ("f", 4) if task == "fibrosis" else ("s", 3)
            assert site.task.classes == tuple(f"{letter}{grade}" for grade in range(top + 1))
            assert site.task.positive == ("f2" if task == "fibrosis" else "s3")
            expected = [f"{letter}{person.grades[place]}" for person in people for _ in range(person.images)]
        else:
            place, cut, classes = BINARY_TASKS[task]
            assert (site.task.classes, site.task.positive) == (classes, classes[1])
            expected = [classes[person.grades[place] >= cut] for person in people for _ in range(person.images)]
        assert site.task.name == task
        assert labels == expected


def test_an_unknown_task(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "in", behsof())
    with pytest.raises(
        BadInput, match=r"'steatosis-s3' \(did you mean steatosis-s\d\?\) is none of BEHSOF's: steatosis, "
    ):
        import_site("behsof", source, tmp_path / "out", options=ImportOptions(task="steatosis-s3"))
    with pytest.raises(BadInput, match="the format behsof takes no --pattern; it takes task, password_file"):
        import_site("behsof", source, tmp_path / "out", options=ImportOptions(pattern="x"))


def test_zips_folders_roots_tables_and_passwords_are_one(tmp_path: Path) -> None:
    members = behsof()
    excel = {**behsof(), "other name 2024.xlsx": as_xlsx(rows_of())}
    del excel["Demo_data.csv"]
    semicolons = {**members, "Demo_data.csv": as_csv(rows_of(), delimiter=";")}
    sources = [
        as_folder(tmp_path / "a", members),
        as_folder(tmp_path / "b", behsof(root="BEHSOF data (v2)/")),
        as_zip(tmp_path / "c.zip", members),
        as_zip(tmp_path / "d.zip", dict(reversed(behsof(root="Döße/x/").items()))),
        as_folder(tmp_path / "e", excel),
        as_folder(tmp_path / "f", semicolons),
        as_zip(tmp_path / "g.zip", {name.replace("image_Data/", ""): content for name, content in members.items()}),
    ]
    found = [imported(source, tmp_path / f"out{n}")[0] for n, source in enumerate(sources)]
    (tmp_path / "password").write_text("open sesame\n", encoding="utf-8")
    with pyzipper.AESZipFile(tmp_path / "h.zip", "w", encryption=pyzipper.WZ_AES) as archive:
        archive.setpassword(b"open sesame")
        for name, content in members.items():
            archive.writestr(name, content)
    write_zipcrypto(tmp_path / "i.zip", members, b"open sesame", plain=("Demo_data.csv",))
    for n, name in enumerate(("h.zip", "i.zip")):
        options = {"password_file": str(tmp_path / "password")}
        found.append(imported(tmp_path / name, tmp_path / f"secret{n}", **options)[0])
    for sites in found:
        assert [told(site) for site in sites.values()] == [told(site) for site in found[0].values()]


def test_a_wrong_password_leaves_nothing(tmp_path: Path) -> None:
    write_zipcrypto(tmp_path / "a.zip", behsof(), b"open sesame")
    (tmp_path / "password").write_text("abracadabra", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    for options in (ImportOptions(), ImportOptions(password_file=str(tmp_path / "password"))):
        with pytest.raises(BadInput) as caught:
            import_site("behsof", tmp_path / "a.zip", tmp_path / "out", options=options)
        assert "abracadabra" not in str(caught.value)
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "spelled",
    ["{}", "  {}  ", r"\Data\{}", r"\Data\ {} ", "Data/{}", "data\\{}\\", " {} ".replace("{}", "{:.3} {:.9}")],
)
def test_ids_with_spaces_and_backslashes(tmp_path: Path, spelled: str) -> None:
    rows = rows_of()
    for row, person in zip(rows, PEOPLE, strict=True):
        row["Patient ID"] = spelled.replace("{:.9}", person.id[3:]).replace("{:.3}", person.id[:3]).format(person.id)
    plain, _ = imported(as_folder(tmp_path / "plain", behsof()), tmp_path / "one")
    sites, summaries = imported(as_folder(tmp_path / "in", behsof(rows)), tmp_path / "two")
    assert [told(site) for site in sites.values()] == [told(site) for site in plain.values()]
    assert all(summary.skipped == 0 for summary in summaries.values())


def test_the_table_is_the_authority_and_every_disagreement_is_counted(tmp_path: Path) -> None:
    """TAL 2 gets another expert grade, BEH 3 another CAP grade and fibrosis, BEH 4's fibrosis is no grade."""
    rows = rows_of()
    by_id = {person.id: row for person, row in zip(PEOPLE, rows, strict=True)}
    tal2, beh3, beh4 = Person("TAL", 2), Person("BEH", 3), Person("BEH", 4)
    assert (tal2.grades[0], beh3.grades[1], beh3.grades[2]) == (2, 1, 0)
    by_id[tal2.id]["Steatosis stage"] = "S0"
    by_id[beh3.id].update({"Fibroscan S": 3.0, "Fibroscan F": "F2"})
    by_id[beh4.id]["Fibroscan F"] = "F9"
    members = behsof(rows)
    folder = f"image_Data/{Person('BEH', 5).id}"
    for name in [name for name in members if name.startswith(folder)]:
        members[name.replace(folder, "image_Data/BEH05331")] = members.pop(name)
    sites, summaries = imported(as_folder(tmp_path / "in", members), tmp_path / "out")
    assert sites["tal"].positive[sites["tal"].patients == 1].tolist() == [False] * tal2.images
    notes = {name: [note for note in summary.notes if "disagreements" in note] for name, summary in summaries.items()}
    assert notes["tal"] == [
        "disagreements of patient id and table: 1 (steatosis by expert 1); the table was followed, "
        "private/remarks.csv names the rows"
    ]
    remarks = private(summaries["beh"], "remarks.csv")
    assert Person("BEH", 5).id == "BEH05122"
    expected = {  # rows count from 2, TAL's seven come first
        ("row 11", "steatosis by CAP: the id says 1, the table 3"),
        ("row 11", "fibrosis: the id says 0, the table 2"),
        ("row 12", "fibrosis: the id says 1, the table no grade"),
        ("row 13", "the id of the images' folder has other grades than the table's Patient ID"),
        ("row 13", "steatosis by expert: the id says 3, the table 1"),
        ("row 13", "steatosis by CAP: the id says 3, the table 2"),
        ("row 13", "fibrosis: the id says 1, the table 2"),
    }
    assert {(row["where"].split("table ")[1], row["remark"]) for row in remarks} == expected
    assert len(remarks) == len(expected)
    assert "disagreements of patient id and table: 7 (" in notes["beh"][0]
    assert "fibrosis 3" in notes["beh"][0]
    assert len(sites["beh"].pseudonyms) == 15
    fibrosis, told_of = imported(tmp_path / "in", tmp_path / "fibrosis", task="fibrosis")
    assert len(fibrosis["beh"].pseudonyms) == 14
    assert any("table row 12" in row["where"] for row in private(told_of["beh"], "skipped.csv"))


def test_without_disagreement_nothing_is_said(tmp_path: Path) -> None:
    _, summaries = imported(as_folder(tmp_path / "in", behsof()), tmp_path / "out")
    assert not any("disagreements" in note for summary in summaries.values() for note in summary.notes)
    assert not (summaries["beh"].folder / "private/remarks.csv").exists()


def test_columns_that_tell_the_label_or_the_person_stay_out(tmp_path: Path) -> None:
    rows = rows_of()
    header = [*HEADER, "LSM kPa", "E score IQR", "Old ID", "Operator", "GGT2", "Split"]
    for number, (row, person) in enumerate(zip(rows, PEOPLE, strict=True)):
        row |= {"LSM kPa": 5, "E score IQR": 1, "Old ID": f"x{number}", "Operator": "ab"[number % 2], "GGT2": number}
        row |= {"Split": "ab"[number % 2], "Reader": f"see {person.id}"}
    members = {**behsof(), "Demo_data.csv": as_csv(rows, header)}
    sites, summaries = imported(as_folder(tmp_path / "in", members), tmp_path / "out")
    assert set(sites["beh"].covariates) == {
        *[
            "sex",
            "age",
            "ast_sgot",
            "alt_sgpt",
            "platelets",
            "ggt",
            "cholesterol",
            "hypertension",
            "bmi",
            "ggt2",
            "split_2",
        ]
    }
    (note,) = [note for note in summaries["beh"].notes if "give a label away" in note]
    told_names = ["cap_score", "e_score", "steatosis_stage", "fibroscan_s", "fibroscan_f", "lsm_kpa", "e_score_iqr"]
    assert sorted(note.split(": ")[1].split(", ")) == sorted(told_names)
    reasons = [row["remark"] for row in private(summaries["tal"], "remarks.csv")]
    assert reasons == ["may say who a patient is; left out"] * 4


def test_a_laboratory_value_that_is_none_stays_empty(tmp_path: Path) -> None:
    rows = rows_of()
    rows[0]["GGT"], rows[1]["GGT"], rows[2]["GGT"] = "haemolysed", "N/A", "31,5"
    sites, summaries = imported(as_folder(tmp_path / "in", behsof(rows)), tmp_path / "out")
    ggt = {int(code): value for code, value in zip(sites["tal"].patients, sites["tal"].covariates["ggt"], strict=True)}
    assert [ggt[code] for code in (0, 1, 2, 3)] == [None, None, "31.5", "30.0"]
    remarks = private(summaries["tal"], "remarks.csv")
    assert [(row["where"].split(", ")[-1], row["remark"]) for row in remarks if "number" in row["remark"]] == [
        ("table row 2", "ggt is no number; left empty")
    ]


def test_what_is_left_out_has_a_reason(tmp_path: Path) -> None:
    rows = rows_of()
    rows[0]["Steatosis stage"] = ""
    rows[1]["Steatosis stage"] = "S4"
    del rows[9]
    rows.append({**dict.fromkeys(HEADER, ""), "sex": "M", "Age": 55})
    rows.append({**dict.fromkeys(HEADER, ""), "Patient ID": "Total"})
    rows.append({**Person("BEH", 40).row()})
    members = behsof(rows)
    members[f"image_Data/{PEOPLE[7].id}/Thumbs.db"] = b"x"
    members[f"image_Data/{PEOPLE[7].id}/.hidden.jpg"] = b"x"
    members["__MACOSX/image_Data/._x"] = b"x"
    members["image_Data/BEH/Image1.jpg"] = b"x"
    members["elsewhere/BEH01121/Image1.jpg"] = b"x"
    members["readme.csv"] = b"a,b\n1,2\n"
    _, summaries = imported(as_folder(tmp_path / "in", members), tmp_path / "out")
    tal = [row["reason"] for row in private(summaries["tal"], "skipped.csv")]
    lacking = "the table gives no steatosis by expert (Steatosis stage: 0 to 3)"
    expected = ["a hidden file"] * 2 + ["in no patient's folder"] * 2 + ["not a file of BEHSOF", "not BEHSOF's table"]
    expected += ["its Patient ID is not TAL or BEH and five digits"] * 2 + [lacking] * 2
    assert sorted(tal) == sorted(expected + ["no row of the table is about this patient"] * PEOPLE[9].images)
    assert [row["reason"] for row in private(summaries["beh"], "skipped.csv")] == ["no image of this patient"]
    assert (summaries["tal"].patients, summaries["beh"].patients) == (5, 14)


def test_one_site_alone_accounts_for_all(tmp_path: Path) -> None:
    members = {name: content for name, content in behsof().items() if "TAL" not in name}
    _, summaries = imported(as_folder(tmp_path / "in", members), tmp_path / "out")
    assert list(summaries) == ["beh"]
    assert summaries["beh"].skipped == 7


def test_no_id_name_or_date_leaves_private(tmp_path: Path) -> None:
    """Every original id, file and folder name and the folders' dates are looked for in every byte outside private/."""
    source = as_zip(tmp_path / "BEHSOF.zip", behsof(root="Root folder/"))
    sites, _ = imported(source, tmp_path / "out")
    traces = [person.id.encode() for person in PEOPLE]
    traces += [b"Image", b"image_Data", b"02_07", b"2022", b"Root folder", b"Demo_data", b".zip", b".jpg", b"Nameless"]
    traces += [b"TAL0", b"BEH0", b"\\Data", b"7/2/", b"Exif"]
    for path in (tmp_path / "out").rglob("*"):
        assert not any(trace in str(path.relative_to(tmp_path)).encode() for trace in traces)
        if path.is_file() and "private" not in path.parts:
            assert not any(trace in path.read_bytes() for trace in traces), path.name
    for site in sites.values():
        names = list(csv.DictReader((site.folder / "private/names.csv").open(encoding="utf-8")))
        assert [row["patient"] for row in names] == [site.pseudonyms[code] for code in site.patients]
        assert names[0]["original_patient"] in {person.id for person in PEOPLE}


def test_a_new_key_renames_patients_and_moves_none(tmp_path: Path) -> None:
    source = as_folder(tmp_path / "in", behsof())
    (one, _), (two, _) = imported(source, tmp_path / "one"), imported(source, tmp_path / "two")
    assert [told(site) for site in one.values()] == [told(site) for site in two.values()]
    assert not set(one["beh"].pseudonyms) & set(two["beh"].pseudonyms)


def test_frames_train_and_lesions_are_refused_in_one_line(tmp_path: Path) -> None:
    sites, summaries = imported(as_folder(tmp_path / "in", behsof()), tmp_path / "out")
    assert load_crops(sites["beh"], Crop(size=32, region="frame")).shape == (len(sites["beh"]), 32, 32)
    with pytest.raises(
        BadInput, match=r'site beh: cases.csv row 2: neither box nor mask; .*crop.region = "frame"'
    ) as caught:
        load_crops(sites["beh"], Crop(size=32))
    assert "\n" not in str(caught.value)
    assert any('crop.region = "frame"' in note for note in summaries["beh"].notes)


def test_the_command_prints_the_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of()
    rows[0]["Steatosis stage"] = (PEOPLE[0].grades[0] + 1) % 4
    source = as_folder(tmp_path / "in", behsof(rows))
    assert main(["import", "behsof", str(source), "--out", str(tmp_path / "one"), "--task", "fibrosis"]) == 0
    said = capsys.readouterr().out
    assert "  note: disagreements of patient id and table: 1 (steatosis by expert 1); the table was followed" in said
    assert main(["import", "behsof", str(source), "--out", str(tmp_path / "two"), "--json"]) == 0
    (tal, beh) = json.loads(capsys.readouterr().out)
    assert "disagreements of patient id and table: 1" in tal["notes"][0]
    assert not any("disagreements" in note for note in beh["notes"])
    assert not any(person.id in said for person in PEOPLE)


def drop(names: Callable[[str], bool]) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        for name in [name for name in members if names(name)]:
            del members[name]

    return change


def put(name: str, content: bytes) -> Callable[[Members], None]:
    return lambda members: members.update({name: content})


def table(change: Callable[[list[Row]], object], header: list[str] = HEADER) -> Callable[[Members], None]:
    def apply(members: Members) -> None:
        rows = rows_of()
        change(rows)
        members["Demo_data.csv"] = as_csv(rows, header)

    return apply


FIRST = PEOPLE[7].paths()[0]
NO_GRADES = [name for name in HEADER if not name.startswith(("Fibroscan", "Steatosis"))]


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        pytest.param(
            drop(lambda name: name.endswith(".csv")), "0 of its 0 tables have BEHSOF's columns", id="no table"
        ),
        pytest.param(put("copy.xlsx", as_xlsx(rows_of())), "2 of its 2 tables have BEHSOF's columns", id="two tables"),
        pytest.param(table(list, NO_GRADES), "0 of its 1 tables have BEHSOF's columns", id="no grade"),
        pytest.param(table(list, HEADER[1:]), "0 of its 1 tables have BEHSOF's columns", id="no id"),
        pytest.param(put("Demo_data.csv", b"\xff\xfe\x00"), r"member \d+: cannot be read as CSV in UTF-8", id="bytes"),
        pytest.param(put("Demo_data.csv", b""), r"member \d+: the table is empty; it needs a header", id="empty"),
        pytest.param(table(lambda rows: rows.append(rows[3])), "table row 24: the same patient as row 5", id="twice"),
        pytest.param(
            drop(lambda name: name.endswith(".jpg")), "no patient has both an image and a label", id="no image"
        ),
        pytest.param(
            table(list, [*HEADER[:-5], *HEADER[-4:]]),
            "and a label for steatosis-s2; expected",
            id="no label",
        ),
        pytest.param(put(FIRST, jpeg(picture(1))[:300]), r"member \d+: truncated or damaged JPEG", id="truncated"),
        pytest.param(put(FIRST, b""), r"member \d+: not a JPEG", id="empty file"),
        pytest.param(put(FIRST, b"GIF89a"), r"member \d+: not a JPEG", id="mislabelled"),
        pytest.param(put("../up.jpg", b"x"), "leads out of the archive", id="traversal"),
        pytest.param(put(FIRST.upper(), b"x"), "bears the name of an earlier member", id="case clash"),
    ],
)
def test_harm_is_one_line_and_nothing_is_written(tmp_path: Path, harm: Callable[[Members], None], says: str) -> None:
    members = behsof()
    harm(members)
    source = as_zip(tmp_path / "a.zip", members)
    with pytest.raises(BadInput, match=says) as caught:
        import_site("behsof", source, tmp_path / "out")
    message = str(caught.value)
    assert "\n" not in message
    assert not any(person.id in message for person in PEOPLE)
    assert "Image0" not in message
    assert not (tmp_path / "out").exists()


def test_no_such_source(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file or folder; give the zip or folder that holds image_Data"):
        import_site("behsof", tmp_path / "absent", tmp_path / "out")
