"""Images decoded once: a content-addressed cache of uint8 crops, memory-mapped.

    <site>/state/cache/<key>/crops.npy    (N, size, size) uint8, in the order of cases.csv
                             meta.json    checksum of crops.npy; size and time of each source file

The key is the SHA-256 of everything that the crops depend on: the files' hashes, the boxes, the crop, the versions of
this format and of Pillow. Two processes that build at once each fill a hidden folder of their own; the first to rename
it wins and the second uses it. Torn or altered files are found by checksum and built again.
"""

from __future__ import annotations

__all__ = ["cache_key", "load_crops"]

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from client.box import Box
from client.crops import crop
from client.pictures import mask_box, open_gray, open_mask
from client.site import Site, require_spacing
from client.staging import staged
from common.config import Crop
from common.errors import BadInput, RunFailed
from common.files import sha256_bytes, sha256_file, write_json

_FORMAT = 1
_CROPS = "crops.npy"
_META = "meta.json"

Crops = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]

_verified: set[tuple[str, int, int, int]] = set()
"""Files whose checksum this process has seen hold: path, inode, size, time of change."""


def load_crops(site: Site, spec: Crop, *, folder: Path | None = None, progress: Progress | None = None) -> Crops:
    """The site's crops, (N, size, size) uint8 in the order of cases.csv, memory-mapped and read-only.

    Built on first use; `progress(done, total)` hears of each image then. `folder` replaces `<site>/state/cache`.
    Raises BadInput where an image is damaged, was changed since the import, has neither box nor mask, or lacks the
    spacing that a margin in millimetres needs; RunFailed where the cache cannot be written.
    """
    require_spacing(site, spec)
    root = folder or site.state / "cache"
    entry = root / cache_key(site, spec)
    for _ in range(3):  # another process may replace a torn entry between our look and our reading
        if not _is_whole(entry, site):
            _build(root, entry, site, spec, progress)
        with suppress(FileNotFoundError):
            return np.load(entry / _CROPS, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    raise RunFailed(f"site {site.id}: its cache of crops is removed while it is read; end the process that does so")


def cache_key(site: Site, spec: Crop) -> str:
    """SHA-256 over everything that the crops of `site` depend on."""
    sources: list[Any] = [site.image_sha256, site.mask_sha256, site.boxes]
    if spec.margin_mm is not None:
        sources.append(site.spacings)
    return sha256_bytes(json.dumps([_FORMAT, PIL.__version__, asdict(spec), sources]).encode())


def _is_whole(entry: Path, site: Site) -> bool:
    """Whether a finished cache lies at `entry`, unharmed, and every source still is what it was built from."""
    try:
        meta = json.loads((entry / _META).read_bytes())
        stat = (entry / _CROPS).stat()
        seen = (str(entry.resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns)
        if seen not in _verified:
            if sha256_file(entry / _CROPS) != meta["crops_sha256"]:
                return False
            _verified.add(seen)
        stamps = _stamps(site)
        if stamps != meta["stamps"]:
            _check_sources(site)
            with suppress(RunFailed):  # a copy of the site, say: unharmed, so remember its times
                write_json(entry / _META, {**meta, "stamps": stamps})
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _stamps(site: Site) -> list[list[int]]:
    """Size and time of change of each image: a cheap sign that a file may have been altered in place."""
    stats = [(site.folder / name).stat() for name in site.images]
    return [[stat.st_size, stat.st_mtime_ns] for stat in stats]


def _check_sources(site: Site) -> None:
    """Hash every image anew. Raises BadInput where one is no longer what cases.csv says."""
    for row in range(len(site)):
        _read(site, "image", row)


def _build(root: Path, entry: Path, site: Site, spec: Crop, progress: Progress | None) -> None:
    try:
        with staged(root, prefix=".building-") as work:
            stamps = _stamps(site)
            checksum = _write_crops(work / _CROPS, site, spec, progress)
            write_json(work / _META, {"format": _FORMAT, "crops_sha256": checksum, "stamps": stamps})
            _publish(work, entry, site)
    except OSError as error:
        raise RunFailed(
            f"site {site.id}: cannot write the cache of crops ({error.strerror}); free space or check permissions"
        ) from None


def _publish(work: Path, entry: Path, site: Site) -> None:
    """Rename the finished folder into place; where another process was faster, its work stays unless it is torn."""
    for _ in range(3):
        with suppress(OSError):
            os.rename(work, entry)
            return
        if not entry.exists():
            break
        if _is_whole(entry, site):
            return
        torn = Path(f"{work}-torn")
        with suppress(OSError):
            os.rename(entry, torn)
        shutil.rmtree(torn, ignore_errors=True)
    os.rename(work, entry)


def _write_crops(path: Path, site: Site, spec: Crop, progress: Progress | None) -> str:
    """Stream the crops into an .npy file, fsync it, and return its SHA-256."""
    digest = hashlib.sha256()
    header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": (len(site), spec.size, spec.size)}
    with path.open("w+b") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.seek(0)
        digest.update(file.read())
        for done, square in enumerate(_crops(site, spec), start=1):
            content = square.tobytes()
            file.write(content)
            digest.update(content)
            if progress is not None:
                progress(done, len(site))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _crops(site: Site, spec: Crop) -> Iterator[Crops]:
    for row in range(len(site)):
        where = f"site {site.id}: cases.csv row {row + 2}"
        image = open_gray(_read(site, "image", row), where=f"{where}: image")
        box = site.boxes[row] or (_box_of_mask(site, row, where=where) if spec.region == "lesion" else None)
        if box is not None and not box.inside(image.size):
            raise BadInput(f"{where}: the box leaves the image of {image.size[0]}×{image.size[1]} pixels; correct it")
        yield crop(image, box, spec, spacing_mm=site.spacings[row])


def _box_of_mask(site: Site, row: int, *, where: str) -> Box:
    if site.masks[row] is None:
        raise BadInput(f'{where}: neither box nor mask; give one, or set crop.region = "frame"')
    return mask_box(open_mask(_read(site, "mask", row), where=f"{where}: mask"))


def _read(site: Site, kind: str, row: int) -> bytes:
    """The bytes of an image or a mask. Raises BadInput unless they are what cases.csv says."""
    names, hashes = (site.images, site.image_sha256) if kind == "image" else (site.masks, site.mask_sha256)
    where = f"site {site.id}: cases.csv row {row + 2}: its {kind}"
    try:
        content = (site.folder / str(names[row])).read_bytes()
    except OSError as error:
        raise BadInput(f"{where} cannot be read ({error.strerror}); restore it or import the site again") from None
    if sha256_bytes(content) != hashes[row]:
        raise BadInput(f"{where} is not what was imported (its SHA-256 differs); restore it or import the site again")
    return content
