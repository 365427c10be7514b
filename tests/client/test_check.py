"""`client check`: every planted defect is found and named, and a site without defects is left in peace."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.__main__ import main
from client.check import Checked, check_site
from client.check.enough import check_enough, tabled_noise
from client.check.finding import TOPICS, Finding
from client.check.page import write_page
from client.check.table import read_cases
from client.site import load_site
from common.errors import BadInput
from tests.client.handmade import edit_cases
from tests.client.speckled import SPECKLED_TOML, replace_image, speckle, write_speckled

ALWAYS = {"class-scarce", "too-few-for-privacy", "nominal-differs"}
"""What is said of the twenty patients of a site without defects."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speckled(tmp_path_factory.mktemp("sound") / "speckled")


@pytest.fixture
def site(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound.parent, tmp_path / "sites")
    return tmp_path / "sites/speckled"


def topics(checked: Checked) -> set[str]:
    return {finding.topic for finding in checked.findings}


def finding(checked: Checked, topic: str) -> Finding:
    return next(found for found in checked.findings if found.topic == topic)


def test_a_sound_site(site: Path) -> None:
    heard: list[tuple[int, int]] = []
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    checked = check_site(site, progress=lambda *step: heard.append(step))
    assert topics(checked) == ALWAYS
    assert not checked.failed
    assert heard == [(n, 20) for n in range(1, 21)]
    assert before == {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}


def flip_a_byte(site: Path) -> None:
    path = site / "images/000003.png"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(site: Path) -> None:
    path = site / "masks/000003.png"
    path.write_bytes(path.read_bytes()[:50])


def other_image(gray: np.ndarray, *, kind: str = "image") -> Callable[[Path], None]:
    return lambda site: edit_cases(site, 5, **replace_image(site, 5, gray, kind=kind))


def edit(**values: str) -> Callable[[Path], None]:
    return lambda site: edit_cases(site, 5, **values)


def shell(action: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda site: action(site) and None


def add(place: str) -> Callable[[Path], None]:
    return lambda site: (site / place).write_bytes(b"x") and None


def covariate(site: Path) -> None:
    (site / "site.toml").write_text(SPECKLED_TOML + '[covariates]\nage = "number"\n', encoding="utf-8")
    edit_cases(site, 5, age="old")


def two_sides(site: Path) -> None:
    edit_cases(site, 5, patient="p-0008")


def two_labels(site: Path) -> None:
    edit_cases(site, 5, patient="p-0000")


DARK = np.zeros((130, 150), dtype=np.uint8)
NEARLY = DARK.copy()
NEARLY[:20, :20] = speckle(1)[:20, :20]
FULL = np.ones((130, 150), dtype=bool)


@pytest.mark.parametrize(
    ("harm", "expected", "rows"),
    [
        pytest.param(flip_a_byte, {"checksum"}, [5], id="flipped byte"),
        pytest.param(cut, {"checksum", "mask-unreadable"}, [5], id="truncated mask"),
        pytest.param(shell(lambda s: os.remove(s / "images/000003.png")), {"file-missing"}, [5], id="no image"),
        pytest.param(edit(mask="masks/none.png"), {"file-missing", "stray-files"}, [5], id="no mask"),
        pytest.param(edit(image="../x.png"), {"file-outside", "stray-files"}, [5], id="outside"),
        pytest.param(edit(image="a\0b"), {"file-outside", "stray-files"}, [5], id="no file can be called so"),
        pytest.param(edit(image_sha256="0" * 64), {"checksum"}, [5], id="wrong hash"),
        pytest.param(other_image(DARK + 9), {"constant"}, [5], id="constant"),
        pytest.param(other_image(NEARLY), {"nearly-empty"}, [5], id="nearly empty"),
        pytest.param(other_image(FULL[1:], kind="mask"), {"mask-size"}, [5], id="mask size"),
        pytest.param(other_image(~FULL, kind="mask"), {"mask-empty"}, [5], id="empty mask"),
        pytest.param(edit(box="120 40 31 40"), {"box-outside", "box-mask"}, [5], id="box leaves"),
        pytest.param(edit(box="1 2 3"), {"box-unread"}, [5], id="box of three"),
        pytest.param(edit(box="0 0 9 9"), {"box-mask"}, [5], id="box beside the mask"),
        pytest.param(edit(box="", mask="", mask_sha256=""), {"no-region", "stray-files"}, [5], id="no region"),
        pytest.param(edit(label="malignnat"), {"label"}, [5], id="label"),
        pytest.param(edit(split="exam"), {"split"}, [5], id="split"),
        pytest.param(edit(patient=""), {"patient-missing"}, [5], id="no patient"),
        pytest.param(two_sides, {"patient-two-sides", "patient-two-labels"}, [5, 10], id="two sides"),
        pytest.param(two_labels, {"patient-two-labels"}, [2, 5], id="two labels"),
        pytest.param(covariate, {"covariate"}, [5], id="covariate"),
        pytest.param(add("images/extra.png"), {"stray-files"}, [], id="stray image"),
        pytest.param(add("notes.txt"), {"stray-files"}, [], id="stray file"),
        pytest.param(shell(lambda s: (s / "private").chmod(0o750)), {"private-mode"}, [], id="private/"),
        pytest.param(shell(lambda s: (s / "private").rmdir()), {"private-missing"}, [], id="no private/"),
        pytest.param(shell(lambda s: (s.parent / ".pseudonym-key").chmod(0o640)), {"key-mode"}, [], id="key"),
        pytest.param(shell(lambda s: (s.parent / ".pseudonym-key").unlink()), {"key-missing"}, [], id="no key"),
        pytest.param(add("private/.pseudonym-key"), {"key-inside"}, [], id="key inside"),
        pytest.param(shell(lambda s: (s / "cases.csv").chmod(0o666)), {"writable"}, [], id="open table"),
    ],
)
def test_a_planted_defect_is_found(
    site: Path, harm: Callable[[Path], None], expected: set[str], rows: list[int]
) -> None:
    harm(site)
    checked = check_site(site)
    new = topics(checked) - ALWAYS - {"outlier"}
    if "checksum" in expected:
        new -= {"unreadable", "mask-unreadable"} - expected
    assert new == expected
    named = {case + 2 for topic in expected for case in finding(checked, topic).cases}
    assert sorted(named) == rows
    assert checked.failed == any(TOPICS[topic].level == "error" for topic in expected)
    try:
        load_site(site)
    except BadInput:
        assert checked.failed, "load_site refuses what the check lets pass"


def test_what_only_load_site_refuses_is_an_error_too(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise BadInput("site speckled: something new is wrong; correct it")

    monkeypatch.setattr("client.check.table.load_site", refuse)
    checked = check_site(site)
    assert checked.failed
    assert "something new is wrong" in finding(checked, "site").what


@pytest.mark.parametrize("seed", range(2))
def test_copies_and_near_copies_are_told_by_where_they_are(site: Path, seed: int) -> None:
    """Rows 2 to 7 train, 8 and 9 val, 10 and 11 test; even rows are benign."""
    rng = np.random.default_rng(seed)
    train, same_class = int(rng.choice([2, 4, 6])), int(rng.choice([12, 14, 16]))
    original = speckle(train - 2)
    brighter = np.clip(original * 1.1 + 5, 0, 255).astype(np.uint8)
    for gray, kind in ((original, "copies"), (brighter, "alike")):
        edit_cases(site, 10, **replace_image(site, 10, gray))
        checked = check_site(site)
        assert topics(checked) - ALWAYS - {"outlier"} == {f"{kind}-across-splits"}
        assert finding(checked, f"{kind}-across-splits").where == f"rows {train} and 10"
        assert [(pair.one, pair.other) for pair in checked.alike] == [(train - 2, 8)]
        edit_cases(site, 10, **replace_image(site, 10, speckle(8)))
        edit_cases(site, same_class, **replace_image(site, same_class, gray))
        assert topics(check_site(site)) - ALWAYS - {"outlier"} == {f"{kind}-between-patients"}
        edit_cases(site, same_class, patient=f"p-{train - 2:04d}")
        assert topics(check_site(site)) - ALWAYS - {"outlier"} == {f"{kind}-within-patient"}
        edit_cases(
            site,
            same_class,
            patient=f"p-{same_class - 2:04d}",
            **replace_image(site, same_class, speckle(same_class - 2)),
        )


def test_one_picture_under_two_classes(site: Path) -> None:
    edit_cases(site, 3, **replace_image(site, 3, speckle(0)))
    assert topics(check_site(site)) >= {"copies-two-labels", "copies-between-patients"}


def test_at_a_held_out_site_nothing_crosses_a_split(site: Path) -> None:
    (site / "site.toml").write_text('role = "held-out"\n' + SPECKLED_TOML, encoding="utf-8")
    edit_cases(site, 10, **replace_image(site, 10, speckle(0)))
    checked = check_site(site)
    assert topics(checked) - {"outlier"} == {"copies-between-patients", "nominal-differs"}
    assert not checked.failed


def test_a_class_that_is_missing_or_scarce(site: Path) -> None:
    for row in (9, 19):
        edit_cases(site, row, label="benign")
    checked = check_site(site)
    assert finding(checked, "class-missing").detail == "malignant in val"
    assert "malignant in test (2)" in finding(checked, "class-scarce").detail


def test_frames_that_tell_the_class(tmp_path: Path) -> None:
    site = write_speckled(tmp_path / "speckled", patients=24)
    for row in range(3, 26, 2):
        edit_cases(site, row, mask="", mask_sha256="", **replace_image(site, row, speckle(row, width=190)))
    checked = check_site(site)
    assert "width (px) tells malignant with AUC 1.00" in finding(checked, "size-tells-class").what
    assert "height" not in finding(checked, "size-tells-class").what


def test_an_outlier(site: Path) -> None:
    edit_cases(site, 5, mask="", mask_sha256="", **replace_image(site, 5, speckle(3, width=600)))
    found = finding(check_site(site), "outlier")
    assert found.cases == [3]
    assert "width" in found.detail


def test_the_nominal_number(site: Path) -> None:
    (site / "site.toml").write_text(SPECKLED_TOML.replace("50", "20"), encoding="utf-8")
    assert "nominal-exact" in topics(check_site(site))


@pytest.mark.parametrize(
    ("patients", "epsilon", "sigma"),
    [
        (149, 8, None),
        (150, 8, 1.6),
        (299, 8, 1.6),
        (300, 7.9, 2.5),
        (9999, 100, 0.74),
        (300, 0.9, None),
        (1000, 3, 1.6),
    ],
)
def test_noise_is_never_read_too_low(patients: int, epsilon: float, sigma: float | None) -> None:
    assert tabled_noise(patients, epsilon) == sigma


def test_another_accountant_may_decide(site: Path) -> None:
    asked: list[tuple[int, float]] = []

    def accountant(patients: int, epsilon: float) -> float:
        asked.append((patients, epsilon))
        return 0.5

    found = {f.topic: f for f in check_enough(read_cases(site), accountant=accountant)}
    assert asked == [(12, 8.0)]
    assert "0.5 times what one patient may add" in found["privacy-noise"].detail
    assert "too-few-for-privacy" in {f.topic for f in check_enough(read_cases(site), accountant=lambda *_: 2.1)}


def test_the_page_stays_and_says_so(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "images/Jane Roe.png").write_bytes(b"x")
    assert main(["check", str(site)]) == 0
    page = site / "private/check.html"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    text = page.read_text(encoding="utf-8")
    assert "MUST NOT LEAVE THE SITE" in text.splitlines()[0]
    assert "Jane Roe.png" in text
    assert "p-0003" not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert text.count("data:image/jpeg") == 20
    said = capsys.readouterr()
    assert "Jane" not in said.out + said.err
    assert "images/" in said.out
    assert main(["check", str(site), "--out", str(tmp_path / "elsewhere.html")]) == 0
    outside = tmp_path / "elsewhere.html"
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert "Jane" not in outside.read_text(encoding="utf-8")
    again = page.read_bytes()
    write_page(check_site(site))
    assert page.read_bytes() == again


def test_exit_codes(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert "no site folder" in capsys.readouterr().err
    edit_cases(site, 5, label="x")
    assert main(["check", str(site), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["levels"]["error"] == 1
    (site / "cases.csv").write_text("image\n", encoding="utf-8")
    assert main(["check", str(site)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
