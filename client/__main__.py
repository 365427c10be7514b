"""`python -m client`: the hospital's commands."""

from __future__ import annotations

__all__ = ["main"]

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import Commands, add_json, command, guarded, parser, show

if TYPE_CHECKING:
    from client.importers import ImportSummary


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 done, 1 failed, 2 bad input."""
    top, commands = parser("client", "The hospital's side: import images, run the client.")
    for add in (_add_import, _add_check, _add_start, _add_ledger):
        add(commands)
    return guarded(top, arguments)


def _add_import(commands: Commands) -> None:
    made = command(
        commands, "import", "turn a data set into site folders",
        "python -m client import lymphus ~/Downloads/Center-1.zip --out sites", _import,
    )  # fmt: skip
    made.add_argument(
        "format", metavar="FORMAT", help="lymphus, behsof, smclud, deeplesion, busbra, csv, folder or dicom"
    )
    made.add_argument("source", type=Path, metavar="SOURCE", help="the archive or folder as it was downloaded")
    made.add_argument("--out", type=Path, required=True, metavar="PARENT", help="site folders are made in here")
    made.add_argument(
        "--task",
        help="behsof: which question the labels answer (default steatosis-s2); csv: its name; folder, dicom: "
        "NAME:POSITIVE",
    )
    made.add_argument("--sites", type=int, help="deeplesion: into how many artificial sites to cut it")
    made.add_argument("--by", help="deeplesion: cut by patient, spacing or dirichlet")
    made.add_argument("--patients", metavar="TABLE", help="smclud: the patient table (csv or xlsx)")
    made.add_argument("--pattern", metavar="REGEX", help="smclud, folder: its group `patient` names the patient")
    made.add_argument("--map", metavar="FILE", help="csv: what the columns mean (TOML)")
    made.add_argument("--site", metavar="ID", help="folder, csv, dicom: the site's id")
    made.add_argument(
        "--nominal-patients",
        type=int,
        metavar="N",
        help="the number of patients that each site declares to the outside, not its true one; private training asks "
        "for it",
    )
    made.add_argument("--password-file", metavar="FILE", help="the file that holds the archive's password")
    add_json(made)


def _add_check(commands: Commands) -> None:
    made = command(
        commands, "check", "look for what would spoil a federation, before joining one",
        "python -m client check sites/tal --json", _check,
    )  # fmt: skip
    made.add_argument("site", type=Path, metavar="SITE", help="the site folder")
    made.add_argument(
        "--out",
        type=Path,
        metavar="FILE.html",
        help="the page, which must stay here (default: SITE/private/check.html)",
    )
    add_json(made)


def _add_start(commands: Commands) -> None:
    made = command(
        commands, "start", "run this hospital's client",
        "python -m client start sites/tal --superlink 10.0.0.5:18000 --ca ca.crt --key tal.key", _start,
    )  # fmt: skip
    made.add_argument("site", type=Path, metavar="SITE", help="the site folder")
    made.add_argument("--superlink", required=True, metavar="HOST:PORT", help="where the coordinator listens")
    made.add_argument("--ca", type=Path, required=True, metavar="FILE", help="the coordinator's CA certificate")
    made.add_argument("--key", type=Path, required=True, metavar="FILE", help="this site's private key")
    made.add_argument(
        "--insecure-demo", action="store_true", help="privacy's draws come from the seed: repeats, and protects nobody"
    )


def _add_ledger(commands: Commands) -> None:
    made = command(
        commands, "ledger", "show what this site has spent of its patients' privacy",
        "python -m client ledger sites/tal", _ledger,
    )  # fmt: skip
    made.add_argument("site", type=Path, metavar="SITE", help="the site folder")
    add_json(made)


def _import(options: argparse.Namespace) -> int:
    from dataclasses import asdict, fields

    from client.importers import import_site
    from common.config import ImportOptions
    from common.parsing import parse
    from common.progress import Progress

    names = [field.name for field in fields(ImportOptions)]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    told = parse(ImportOptions, given, where="options")

    with Progress(f"importing {options.format}", total=1) as progress:
        summaries = import_site(
            options.format,
            options.source,
            options.out,
            options=told,
            progress=lambda n, total: progress.update(n / max(total, 1)),
        )
    value = [asdict(summary) | {"folder": str(summary.folder)} for summary in summaries]
    show(value, as_json=options.json, text="\n".join(_line(summary) for summary in summaries))
    return 0


def _line(summary: ImportSummary) -> str:
    """One site in one line, such as `sites/tal: 18 patients, 240 images (benign 120, ...); 2 left out`;
    its notes below, and last the names that may leave it.
    """
    classes = ", ".join(f"{name} {count}" for name, count in summary.classes.items())
    splits = ", ".join(f"{name} {count}" for name, count in summary.splits.items())
    left = f"; {summary.skipped} left out, see private/skipped.csv" if summary.skipped else ""
    line = f"{summary.folder}: {summary.patients} patients, {summary.images} images ({classes}; {splits}){left}"
    return "\n".join([line, *(f"  note: {note}" for note in summary.notes), *_names_told(summary)])


def _names_told(summary: ImportSummary) -> list[str]:
    """The names that the import proposes, for a person to look at."""
    if not summary.levels:
        return []
    head = (
        f"  look: these names may leave the site as names of groups; strike out in {summary.folder}/site.toml, "
        "[levels], what must stay (a person's, a serial number):"
    )
    return [head, *(f"    {column}: {', '.join(names)}" for column, names in summary.levels.items())]


def _check(options: argparse.Namespace) -> int:
    """Exit 1 where an error was found. What --json prints may leave the site; the table and the page stay."""
    from client.check import check_site
    from client.check.page import write_page
    from client.check.terminal import table_text
    from common.progress import Progress

    with Progress("checking", total=1) as progress:
        checked = check_site(options.site, progress=lambda n, total: progress.update(n / total))
    page = write_page(checked, options.out)
    text = table_text(checked.cases, checked.findings, colour=sys.stdout.isatty())
    value = checked.summary() if options.json else None
    show(value, as_json=options.json, text=f"{text}\npage, which must stay here: {page}")
    return 1 if checked.failed else 0


def _start(options: argparse.Namespace) -> int:
    from client.supernode import start_client

    return start_client(
        options.site, superlink=options.superlink, ca=options.ca, key=options.key, insecure_demo=options.insecure_demo
    )


def _ledger(options: argparse.Namespace) -> int:
    from client.manifest import load_manifest
    from client.spending import account_of, as_table, as_text

    manifest = load_manifest(options.site)
    account = account_of(options.site, manifest)
    show(as_table(account, manifest.policy), as_json=options.json, text=as_text(account, manifest.policy))
    return 0


if __name__ == "__main__":
    sys.exit(main())
