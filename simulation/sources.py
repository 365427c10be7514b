"""An experiment's data as site folders: existing ones, and data sets that are imported on demand into a cache."""

from __future__ import annotations

__all__ = ["open_sites", "site_folders"]

import json
import os
from dataclasses import replace
from pathlib import Path

from client.importers import import_site
from client.manifest import load_manifest
from client.site import Site, load_site, require_spacing, require_task
from client.staging import staged
from common.config import Experiment, Source
from common.errors import BadInput
from common.files import sha256_bytes
from common.parsing import to_table
from common.progress import Progress

_IMPORT_VERSION = 5


def cache_folder() -> Path:
    """Where imported sites are kept: $SONOFED_CACHE, else `.sonofed` in the working directory."""
    return Path(os.environ.get("SONOFED_CACHE", ".sonofed"))


def site_folders(experiment: Experiment) -> list[Path]:
    """The folders of all sites of the experiment, imported where they are not yet; BadInput where there are none."""
    folders = [Path(site.path) for site in experiment.sites if site.path is not None]
    for source in experiment.sources:
        folders += _imported(source)
    if not folders:
        raise BadInput("the experiment names no data; add [[sources]] with format and path, or [[sites]] with path")
    return folders


def open_sites(experiment: Experiment) -> dict[str, Site]:
    """All sites by id, checked against the task; roles that the experiment overrules are overruled."""
    roles = {Path(site.path): site.role for site in experiment.sites if site.path is not None}
    sites: dict[str, Site] = {}
    for folder in site_folders(experiment):
        site = load_site(folder, role=roles.get(folder))
        if site.id in sites:
            raise BadInput(f"site {site.id} is named twice; give each site its own id")
        if site.role == "train" and load_manifest(folder).role == "held-out":
            raise BadInput(
                f"site {site.id}: its folder says held-out, so it never trains; take `role` out of [[sites]]"
            )
        if site.id in experiment.held_out:
            site = replace(site, role="held-out")
        require_task(site, experiment.task)
        require_spacing(site, experiment.crop)
        sites[site.id] = site
    if unknown := set(experiment.held_out) - sites.keys():
        raise BadInput(f"held_out: no site is called {min(unknown)}; known are {', '.join(sorted(sites))}")
    return dict(sorted(sites.items()))


def _imported(source: Source) -> list[Path]:
    path = Path(source.path)
    if not path.exists():
        raise BadInput(f"sources: {source.path}: no such file or folder; it is relative to the working directory")
    imports = cache_folder() / "imports"
    folder = imports / f"{source.format}-{_listing_key(source, path)}"
    if not folder.exists():
        _import(source, path, imports, folder)
    return sorted(manifest.parent for manifest in folder.glob("*/site.toml"))


def _import(source: Source, path: Path, imports: Path, folder: Path) -> None:
    """Import next to `folder` and rename at the end: a kill leaves nothing, and the second of two processes yields."""
    imports.mkdir(parents=True, exist_ok=True)
    with staged(imports, prefix=".import-") as work, Progress(f"importing {source.format}", total=1) as progress:
        import_site(
            source.format,
            path,
            work / "sites",
            options=source.options,
            progress=lambda n, total: progress.update(n / max(total, 1)),
        )
        try:
            (work / "sites").rename(folder)
        except OSError:
            if not folder.exists():
                raise


def _listing_key(source: Source, path: Path) -> str:
    """Names, sizes and times of the source's files and of those that options name: what changed is imported anew."""
    root = path.parent if source.format == "csv" else path  # a table's images lie below its folder
    files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
    named = (source.options.map, source.options.patients)
    files += [Path(name) for name in named if name is not None and Path(name).is_file()]
    about = [(os.path.relpath(file, path.parent), (s := file.stat()).st_size, s.st_mtime_ns) for file in files]
    told = [_IMPORT_VERSION, source.format, to_table(source.options), about]
    return sha256_bytes(json.dumps(told).encode())[:16]
