"""No name, folder or identifier of a patient leaves a site's `private/`:
not by a file, a line, an error or a message.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from flwr.app import Message

from common.config import Crop
from common.processes import free_port
from server.records import read_records
from server.run import initial_weights, prepare_run
from server.submit import submit
from tests.experiments import command, write_experiment
from tests.faults import token_sources
from tests.faults.deployed import deployment_in
from tests.faults.eavesdropper import eavesdropping
from tests.faults.small_sites import experiment as deployed_experiment
from tests.faults.token_sources import Tokens

PATTERN = r"^[^/]+/(?P<patient>[^/]+)/"


@dataclass
class Imported:
    """Sites of three formats below a folder that is a token itself, what importing said, and all tokens."""

    tokens: Tokens
    sites: Path
    said: bytes

    def folders(self) -> list[Path]:
        return sorted(path.parent for path in self.sites.glob("*/site.toml"))


def told(done: object) -> bytes:
    return (done.stdout + done.stderr).encode()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Imported:
    tokens = Tokens("leaks")
    base = tmp_path_factory.mktemp("leaks") / tokens.new()
    folder = token_sources.class_folder(base, tokens)
    table, mapping = token_sources.mapped_table(base, tokens)
    dicom = token_sources.dicom_folder(base, tokens)
    liver, patients = token_sources.liver_lesions(base, tokens)
    fat = token_sources.fatty_livers(base, tokens)
    sites = base.parent / "sites"
    calls = [
        ("folder", folder, "--site", "ash", "--task", "lump:malignant", "--pattern", PATTERN),
        ("csv", table, "--map", mapping, "--site", "birch", "--task", "lump"),
        ("dicom", dicom, "--site", "cedar", "--task", "lump:malignant"),
        ("smclud", liver, "--patients", patients),
        ("behsof", fat),
    ]
    said = b""
    for call in calls:
        done = command("client", "import", *call, "--out", sites)
        assert done.returncode == 0, done.stderr
        said += told(done)
    return Imported(tokens, sites, said)


def outside_private(root: Path) -> Iterator[Path]:
    """Every file below `root` that does not lie in a site's private/, nor is the key beside it."""
    for path in root.rglob("*"):
        if path.is_file() and "private" not in path.relative_to(root).parts:
            yield path


def leaks(tokens: Tokens, root: Path) -> dict[str, list[str]]:
    """Tokens by file: in its content and in its path below `root`."""
    found = {}
    for path in outside_private(root):
        name = str(path.relative_to(root)).encode()
        if there := tokens.in_(path.read_bytes()) + tokens.in_(name):
            found[str(path)] = there
    return found


def test_a_search_that_finds_nothing_would_find_it(imported: Imported) -> None:
    private = [path.read_bytes() for path in imported.sites.glob("*/private/names.csv")]
    known = {token for content in private for token in imported.tokens.in_(content)}
    assert len(known) > 150, "names.csv links back, and the search sees it there"
    assert imported.tokens.in_(imported.tokens.given[3].lower().encode()) == [imported.tokens.given[3]]


def test_the_name_of_a_person_is_not_even_in_private(imported: Imported) -> None:
    every = b"".join(path.read_bytes() for path in (imported.sites / "cedar").rglob("*") if path.is_file())
    headers = 20 * 6  # five tags and a file name for each patient
    start = next(i for i, token in enumerate(imported.tokens.given) if token.encode() in every)
    kept = {token for token in imported.tokens.given[start : start + headers] if token.encode() in every}
    assert 20 <= len(kept) <= 40, "PatientID and the file's name of each, and no other tag"


def test_imports_and_checks_keep_every_name_inside_private(imported: Imported) -> None:
    assert imported.tokens.in_(imported.said.replace(str(imported.sites).encode(), b"")) == []
    for folder in imported.folders():
        done = command("client", "check", folder, "--json")
        assert done.returncode in (0, 1), done.stderr
        assert imported.tokens.in_(told(done)) == []
    assert leaks(imported.tokens, imported.sites) == {}


def test_a_whole_comparison_writes_and_says_none(imported: Imported, tmp_path: Path) -> None:
    sites = [imported.sites / name for name in ("ash", "birch", "cedar")]
    moved = tmp_path / imported.tokens.new()  # the path of the sites is nobody's business either
    for site in sites:
        shutil.copytree(site, moved / site.name)
    changes = {"crop": {"size": 16, "region": "frame"}, "comparison": {"seeds": 1, "pictures": 2, "workers": 1}}
    config = write_experiment(
        moved / "x.toml", [moved / site.name for site in sites], evaluation={"draws": 20}, **changes
    )
    done = command("simulation", "compare", config, "--out", tmp_path / "run", timeout=600)
    assert done.returncode == 0, done.stderr
    assert imported.tokens.in_(told(done)) == []
    assert leaks(imported.tokens, tmp_path / "run") == {}
    assert set(leaks(imported.tokens, moved)) <= {str(config)}, (
        "the experiment itself names the folders; nothing else does"
    )


def test_no_message_between_site_and_server_holds_one(imported: Imported, tmp_path: Path) -> None:
    from client.app import app as client_app
    from common.config import load_experiment
    from server.app import app as server_app
    from server.run import initial_weights, prepare_run, resolved
    from simulation import grid
    from simulation.sources import open_sites

    folders = [imported.sites / name for name in ("ash", "birch", "cedar")]
    config = write_experiment(tmp_path / "x.toml", folders, crop={"size": 16, "region": "frame"})
    experiment = load_experiment(config)
    roles = {name: site.role for name, site in open_sites(experiment).items()}
    prepare_run(tmp_path / "run", resolved(experiment, dict(roles)), initial_weights(experiment))
    heard: list[bytes] = []
    carrier = grid.LocalGrid(client_app, [folder.resolve() for folder in folders], on_message=_recorder(heard))
    options = {"run-folder": str(tmp_path / "run"), "run": "federated", "final": True, "train": True}
    server_app(carrier, grid.Context(1, 1, {}, grid.RecordDict(), options))
    assert len(heard) > 20
    assert sum(map(len, heard)) > 100_000, "weights travelled"
    assert [token for content in heard for token in imported.tokens.in_(content)] == []


def _recorder(heard: list[bytes]):  # type: ignore[no-untyped-def]
    def record(message: Message) -> None:
        if message.has_error():
            heard.append(str(message.error).encode())
            return
        for config in message.content.config_records.values():
            heard.append(repr(dict(config)).encode())
        for arrays in message.content.array_records.values():
            heard.extend(array.data for array in arrays.values())

    return record


def test_a_deployment_writes_and_sends_none(imported: Imported, tmp_path: Path) -> None:
    """Two hospitals whose folders bear tokens too.

    A picture of one is damaged: its error travels, the other's weights do.
    """
    tokens, base = imported.tokens, tmp_path / "all"
    homes = {name: base / tokens.new() / name for name in ("ash", "birch")}
    for name, home in homes.items():
        shutil.copytree(imported.sites / name, home)
    (homes["birch"] / "images" / "000003.png").write_bytes(b"torn")
    about = replace(deployed_experiment(tuple(homes), rounds=1), crop=Crop(size=32, region="frame"))
    prepare_run(base / "run", about, initial_weights(about))
    port = free_port()
    with eavesdropping(port, base / "state") as (relay, heard), deployment_in(base, port=port) as there:
        for name, home in homes.items():
            there.start_client(name, home, port=relay)
        for name in homes:
            there.await_line(name, "connected\n")
        assert submit(base / "run", state=there.state, final=False, timeout=200) == 0
    said = b"".join(heard)
    events = {event["event"]: event for event in read_records(base / "run" / "records.jsonl")}
    assert (events["train"]["site"], events["failure"]["site"]) == ("ash", "birch")
    assert len(said) > 500_000, "weights travelled"
    assert events["failure"]["why"][:20].encode() in said, "and the error did, in plain bytes"
    assert tokens.in_(said) == []
    assert {"superlink.db", "superlink.log", "supernode.log"} <= {file.name for file in outside_private(base)}
    assert [leaks(tokens, home) for home in homes.values()] == [{}, {}]
    for home in homes.values():
        shutil.rmtree(home.parent)  # its name is a token, and was searched for inside
    assert leaks(tokens, base) == {}


def test_errors_about_damaged_sources_and_sites_name_none(imported: Imported, tmp_path: Path) -> None:
    tokens = Tokens("errors")
    source = token_sources.class_folder(tmp_path / "in", tokens, patients=4)
    victim = sorted(source.rglob("*.png"))[2]
    victim.write_bytes(victim.read_bytes()[:60])
    call = ("folder", source, "--site", "ash", "--task", "lump:malignant", "--pattern", PATTERN)
    done = command("client", "import", *call, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert tokens.in_(told(done)) == []
    site = tmp_path / "site"
    shutil.copytree(imported.sites / "birch", site)
    (site / "images" / "000003.png").write_bytes(b"torn")
    config = write_experiment(tmp_path / "x.toml", [site, imported.sites / "ash"], crop={"size": 16, "region": "frame"})
    done = command("simulation", "run", config, "--out", tmp_path / "run")
    assert b"birch" in told(done), "the site that failed is named, and so is what is wrong"
    assert b"checksum" in told(done) or b"damaged" in told(done), told(done)
    assert imported.tokens.in_(told(done)) == []
    assert leaks(imported.tokens, tmp_path / "run") == {}
