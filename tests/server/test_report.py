"""report.html: the same bytes from the same folder, nothing asked from outside, every number as results.json has it."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import BadInput
from server.report import write_report
from tests.server.report_folder import SITES, Folder

_VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags are balanced, and collects tables by their `data-table`, text and the attributes that load."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tables: dict[tuple[str, str], list[list[str]]] = {}
        self.row: list[str] | None = None
        self.rows: list[list[str]] | None = None
        self.words: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in _VOID:
            self.open.append(tag)
        self.loads += [
            given[name] or "" for name in ("src", "href", "data", "srcset", "action", "xlink:href") if name in given
        ]
        self.ids += [given["id"] or ""] if "id" in given else []
        self.refers += [given["aria-describedby"] or ""] if "aria-describedby" in given else []
        assert not [name for name in given if name.startswith("on") or name == "style"], "the policy forbids these"
        if tag == "table":
            self.rows = self.tables.setdefault((given.get("data-table") or "", given.get("data-protocol") or ""), [])
        elif tag == "tr":
            self.row = []
        elif tag in ("td", "th") and self.row is not None:
            self.row.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "tr" and self.rows is not None and self.row is not None:
            self.rows.append(self.row)
            self.row = None

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.row:
            self.row[-1] += data


def read(run: Path) -> tuple[str, Page]:
    html = write_report(run).read_text(encoding="utf-8")
    return html, Page(html)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Folder(tmp_path_factory.mktemp("run")).comparison().records().pictures().write()


def shown(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def test_the_same_folder_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    again = Folder(tmp_path / "other").comparison().records().pictures().write()
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert write_report(again).read_bytes() == first, "the folder's place must not be in the page"


def test_nothing_is_asked_from_outside(run: Path) -> None:
    html, page = read(run)
    assert "http:" not in html
    assert "https:" not in html
    assert "//" not in re.sub(r"data:image/png;base64,[\w+/=]+", "", html)
    assert all(load.startswith(("#", "data:")) for load in page.loads)
    assert "default-src 'none'" in html
    assert "<script" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_links_and_definitions_lead_somewhere(run: Path) -> None:
    _, page = read(run)
    assert {load[1:] for load in page.loads if load.startswith("#")} <= set(page.ids)
    assert set(page.refers) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


class Hovers(HTMLParser):
    """What a mouse alone would show: `title` of elements and of SVG groups,
    with the words of the figure they are in.
    """

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.unreachable: list[str] = []
        self.hovers = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.stack.append((tag, dict(attrs), []))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "title" not in dict(attrs)

    def handle_data(self, data: str) -> None:
        if self.stack:
            self.stack[-1][2].append(data)

    def handle_endtag(self, tag: str) -> None:
        _, given, words = self.stack.pop()
        said = "".join(words)
        focusable = given.get("tabindex") == "0" or tag in ("a", "summary", "button")
        if "data-tip" in given or "title" in given:
            self.hovers += 1
            hover = given.get("data-tip") or given.get("title") or ""
            self.unreachable += [] if focusable or hover in said else [hover]
        if tag == "title" and self.stack[-1][0] == "g":
            self.hovers += 1
            figure = next(one for one in self.stack if one[0] == "figure")
            figure[1].setdefault("hovers", "")
            figure[1]["hovers"] = f"{figure[1]['hovers']}\n{said}"
            return
        if tag == "figure":
            items = said.split("\n")
            self.unreachable += [one for one in (given.get("hovers") or "").split("\n") if one and one not in items]
        if self.stack and tag != "title":
            self.stack[-1][2].append(said)


def test_what_hovers_is_reached_without_a_mouse(run: Path) -> None:
    """A definition's term takes focus; a picture's hover texts stand word for word in a list beside it."""
    html, _ = read(run)
    found = Hovers(html)
    assert found.hovers > 200
    assert found.unreachable == []
    mute = re.sub(r'<details class="said">.*?</details>', "", html, flags=re.DOTALL)
    assert len(Hovers(mute).unreachable) > 100, "the lists are what makes them reachable"
    assert Hovers('<p><span title="more than is seen">seen</span></p>').unreachable == ["more than is seen"]


def test_focus_shows(run: Path) -> None:
    style = re.search("<style>(.*?)</style>", read(run)[0], re.DOTALL)
    assert style is not None
    assert ":focus-visible { outline: 2px solid" in style[1]
    assert ".term:focus::after" in style[1]
    assert not re.search(r"outline:\s*(none|0)", style[1])


def test_the_policy_allows_exactly_this_style(run: Path) -> None:
    import base64
    import hashlib

    html, _ = read(run)
    style = html.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in html


@pytest.mark.parametrize("protocol", ["leave-one-center-out", "in-federation"])
def test_every_auc_of_the_first_table_is_that_of_results_json(run: Path, protocol: str) -> None:
    rows = json.loads((run / "results.json").read_text())["rows"]
    _, page = read(run)
    head, *body = page.tables[("lead", protocol)]
    arms = ["federated", "pooled", "local", "ensemble"]
    assert [cell.lower() for cell in map(str.split, head[2:6]) for cell in [" ".join(cell).split()[-1]]] == arms
    assert len(body) == len(SITES) + 1
    for line in body:
        name = line[0].replace("worst", "").strip()
        site = "all" if name in ("Mean of centers", "All cases together") else name
        for arm, cell in zip(arms, line[2:6], strict=True):
            mine = [r for r in rows if (r["arm"], r["protocol"], r["site"]) == (arm, protocol, site)]
            if arm == "local" and site != "all":
                at_home = protocol == "in-federation"
                mine = [r for r in mine if (r["trained_on"] == [site]) == at_home]
            auc, low, high = (float(np.mean([r[key] for r in mine])) for key in ("auc", "auc_low", "auc_high"))
            assert cell.split() == [shown(auc), f"{shown(low)}–{shown(high)}"]


def test_every_measure_is_that_of_results_json(run: Path) -> None:
    rows = json.loads((run / "results.json").read_text())["rows"]
    _, page = read(run)
    body = page.tables[("measures", "leave-one-center-out")][1:]
    site = ""
    for line in body:
        site = line.pop(0).strip() if len(line) == 11 else site
        arm = line[0].split()[-1]
        if arm == "local" or site == "Mean of centers":
            continue
        mine = [r for r in rows if (r["arm"], r["protocol"], r["site"]) == (arm, "leave-one-center-out", site)]
        for name, place in (("auc_patient", 2), ("sensitivity", 3), ("specificity", 4), ("calibration_slope", 8)):
            assert line[place].strip() == shown(float(np.mean([r[name] for r in mine]))), (site, arm, name)
        assert line[6].strip() == f"{np.mean([r['brier'] for r in mine]):.3f}".removeprefix("0")


def test_the_worst_center_is_first_and_marked(run: Path) -> None:
    rows = json.loads((run / "results.json").read_text())["rows"]
    mean = {
        site: np.mean(
            [
                r["auc"]
                for r in rows
                if (r["arm"], r["protocol"], r["site"]) == ("federated", "leave-one-center-out", site)
            ]
        )
        for site in SITES
    }
    _, page = read(run)
    first = page.tables[("lead", "leave-one-center-out")][1][0]
    assert first.split() == [min(mean, key=lambda site: mean[site]), "worst"]


def test_the_matrix_holds_own_patients_on_the_diagonal_and_all_of_the_others_elsewhere(run: Path) -> None:
    rows = json.loads((run / "results.json").read_text())["rows"]
    _, page = read(run)
    table = {line[0].split()[-1]: line[1:] for line in page.tables[("matrix", "")][1 : len(SITES) + 1]}
    for origin in SITES:
        for site, cell in zip(SITES, table[origin], strict=True):
            protocol = "in-federation" if origin == site else "leave-one-center-out"
            mine = [r["auc"] for r in rows if r["arm"] == "local" and r["trained_on"] == [origin] and r["site"] == site
                    and r["protocol"] == protocol]  # fmt: skip
            assert cell.strip() == shown(float(np.mean(mine)))


def test_hostile_names_are_words_and_nothing_else(tmp_path: Path) -> None:
    evil = '<script>alert("1")<img src=x onerror=alert(1)>&amp;'.replace("/", "")
    folder = Folder(tmp_path / "run", sites=(evil, "b"), seeds=1, cases=40).comparison().records()
    folder.rows[0]["why"] = evil
    for event in folder.events:
        if event["event"] == "failure":
            event["why"] = evil
    html, page = read(folder.write(name=evil))
    assert "<script" not in html
    assert "<img src=x" not in html
    assert evil in "".join(page.words)


def test_a_single_federated_run_says_what_is_absent(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", seeds=1)
    for site in (*SITES, "all"):
        folder.row("federated", "in-federation", 0, site, SITES, predictions=None)
    none: dict[str, Any] = dict.fromkeys(("auc", "auc_low", "auc_high", "sensitivity", "specificity"))
    folder.rows[1] |= none | {"why": "suppressed"}
    _, page = read(folder.write())
    words = " ".join(" ".join(page.words).split())
    for sentence in (
        "no center was held out, so this says nothing about a center it has never seen",
        "The arm pooled was not run.",
        "No center was left out in turn",
        "their predictions are not in the run folder",
        "There are no attention maps",
        "records.jsonl is not in the run folder",
        "suppressed: fewer patients than the center’s policy lets out".replace("’", "'"),
    ):
        assert sentence in words, sentence
    line = next(row for row in page.tables[("lead", "in-federation")] if SITES[1] in row[0])
    assert line[2].split()[0] == "–"
    assert ".00" not in line[2]


def test_a_run_without_results_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"results\.json is missing"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text('{"config": {}, "rows": [{"arm": "federated"}]}')
    with pytest.raises(BadInput, match=r"results\.json: rows\.0\.protocol"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text('{"config": {}, "rows": []}')
    assert "holds no result yet" in write_report(tmp_path).read_text(encoding="utf-8")


def test_pictures_outside_their_folder_are_not_taken(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run", seeds=1, cases=40).comparison().pictures(1)
    (tmp_path / "run" / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    index = tmp_path / "run" / "pictures" / SITES[0] / "index.json"
    index.write_text(json.dumps([{"image": "../../secret.png", "attention": "case-1.png", "model": "m"}]))
    _, page = read(folder.write())
    assert f"pictures of {SITES[0]}: 1 are named in the list but cannot be read." in " ".join(page.words)


def test_a_torn_record_is_left_out_and_said(tmp_path: Path) -> None:
    run = Folder(tmp_path / "run", seeds=1, cases=40).comparison().records().write()
    with (run / "records.jsonl").open("a") as file:
        file.write('{"event": "eval')
    _, page = read(run)
    assert "1 lines of records.jsonl could not be read" in " ".join(page.words)


def test_five_centers_four_arms_three_seeds_of_two_thousand_rows_are_quick(tmp_path: Path) -> None:
    run = (
        Folder(tmp_path / "run", sites=("a", "b", "c", "d", "e"), cases=2000)
        .comparison(("federated", "pooled", "ensemble"))
        .records()
        .write()
    )
    began = time.process_time()
    write_report(run)
    assert time.process_time() - began < 3


def test_the_roc_curve_is_scikit_learns_on_the_grid() -> None:
    from sklearn.metrics import roc_curve

    from server.report.scores import GRID, roc

    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.4
    scores = np.round(rng.normal(size=400) + truth, 1)
    x, y, _ = roc_curve(truth, scores, drop_intermediate=False)
    ours = roc(truth, scores)
    assert ours is not None
    for at, height in zip(GRID, ours, strict=True):
        exact = y[np.isclose(x, at, atol=1e-12)]
        i = int(np.searchsorted(x, at))
        between = exact.max() if len(exact) else y[i - 1] + (y[i] - y[i - 1]) * (at - x[i - 1]) / (x[i] - x[i - 1])
        assert height == pytest.approx(between, abs=1e-9)
    assert roc(np.ones(5, dtype=bool), scores[:5]) is None


def test_predictions_of_several_classes_become_one_pair_for_each(tmp_path: Path) -> None:
    from server.report.scores import read_predictions

    path = tmp_path / "several.csv"
    path.write_text("patient,image,label,score_a,score_b,score_c\np1,i1,a,.7,.2,.1\np2,i2,c,.1,.3,.6\n")
    found = read_predictions(path)
    assert found is not None
    truths = [truth.tolist() for truth, _ in found.pairs]
    assert truths == [[True, False], [False, False], [False, True]]
    assert found.pairs[2][1].tolist() == [0.1, 0.6]
    assert read_predictions(tmp_path / "absent.csv") is None
