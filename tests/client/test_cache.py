"""The cache gives what decoding gives, and no accident makes it give anything else."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from handmade import edit_cases, write_site
from PIL import Image

from client import cache
from client.cache import cache_key, load_crops
from client.crops import crop
from client.site import Site, load_site
from common.config import Crop
from common.errors import BadInput, RunFailed

SPEC = Crop(size=32)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return load_site(write_site(tmp_path / "hand-made"))


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_verified", set())


def decoded(site: Site, spec: Crop = SPEC) -> np.ndarray:
    images = [Image.open(site.folder / name) for name in site.images]
    return np.stack([crop(image, box, spec) for image, box in zip(images, site.boxes, strict=True)])


def entries(site: Site) -> list[Path]:
    return sorted((site.state / "cache").glob("*"))


def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    built: list[Path] = []
    build = cache._build
    monkeypatch.setattr(cache, "_build", lambda root, entry, *rest: (built.append(entry), build(root, entry, *rest))[1])
    return built


def test_crops_are_what_decoding_gives(site: Site) -> None:
    heard: list[tuple[int, int]] = []
    crops = load_crops(site, SPEC, progress=lambda done, total: heard.append((done, total)))
    assert crops.shape == (len(site), 32, 32)
    assert crops.dtype == np.uint8
    assert isinstance(crops, np.memmap)
    assert np.array_equal(crops, decoded(site))
    assert heard == [(done, len(site)) for done in range(1, len(site) + 1)]
    with pytest.raises(ValueError, match="read-only"):
        crops[0] = 0


def test_the_second_time_nothing_is_decoded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    load_crops(site, SPEC)
    built = count_builds(monkeypatch)
    cache._verified.clear()
    assert np.array_equal(load_crops(site, SPEC), decoded(site))
    assert built == []


def test_another_crop_size_or_box_is_another_entry(site: Site) -> None:
    other_box = replace(site, boxes=(site.boxes[0]._replace(width=3), *site.boxes[1:]))
    keys = {cache_key(site, SPEC), cache_key(site, Crop(size=48)), cache_key(site, Crop(size=32, margin=0.3))}
    keys |= {cache_key(site, Crop(size=32, region="frame")), cache_key(other_box, SPEC)}
    assert len(keys) == 5
    for spec in (SPEC, Crop(size=48), Crop(size=32, region="frame")):
        assert np.array_equal(load_crops(site, spec), decoded(site, spec))


def test_without_a_box_the_mask_gives_it(tmp_path: Path, site: Site) -> None:
    bare = load_site(write_site(tmp_path / "bare", boxes=False))
    assert all(box is None for box in bare.boxes)
    assert np.array_equal(load_crops(bare, SPEC), load_crops(site, SPEC))


def test_neither_box_nor_mask(site: Site) -> None:
    edit_cases(site.folder, 4, box="", mask="", mask_sha256="")
    bare = load_site(site.folder)
    with pytest.raises(BadInput, match=r'row 4: neither box nor mask; .*crop.region = "frame"'):
        load_crops(bare, SPEC)
    assert load_crops(bare, Crop(size=32, region="frame")).shape == (10, 32, 32)


def test_a_box_beyond_the_image(site: Site) -> None:
    edit_cases(site.folder, 4, box="30 30 100 5")
    with pytest.raises(BadInput, match="row 4: the box leaves the image of"):
        load_crops(load_site(site.folder), SPEC)
    assert entries(site) == []


def test_a_new_image_makes_a_new_entry(site: Site) -> None:
    load_crops(site, SPEC)
    name = site.folder / site.images[3]
    Image.fromarray(np.full((70, 70), 7, dtype=np.uint8)).save(name)
    edit_cases(site.folder, 5, image_sha256=hashlib.sha256(name.read_bytes()).hexdigest())
    changed = load_site(site.folder)
    assert np.array_equal(load_crops(changed, SPEC), decoded(changed))
    assert len(entries(site)) == 2


def test_an_image_changed_behind_our_back_is_refused(site: Site) -> None:
    load_crops(site, SPEC)
    Image.fromarray(np.full((70, 70), 7, dtype=np.uint8)).save(site.folder / site.images[3])
    with pytest.raises(BadInput, match="row 5: its image is not what was imported"):
        load_crops(site, SPEC)
    shutil.rmtree(site.state)
    with pytest.raises(BadInput, match="row 5: its image is not what was imported"):
        load_crops(site, SPEC)


def test_a_copied_site_keeps_its_cache(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_crops(site, SPEC)
    shutil.copytree(site.folder, tmp_path / "copy", copy_function=shutil.copy)
    built = count_builds(monkeypatch)
    copy = load_site(tmp_path / "copy")
    assert np.array_equal(load_crops(copy, SPEC), decoded(site))
    assert built == []


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "no meta", "torn meta", "other meta"])
def test_a_harmed_entry_is_built_again(site: Site, harm: str) -> None:
    load_crops(site, SPEC)
    (entry,) = entries(site)
    content = bytearray((entry / "crops.npy").read_bytes())
    match harm:
        case "flip":
            content[-1] ^= 1
            (entry / "crops.npy").write_bytes(content)
        case "cut":
            (entry / "crops.npy").write_bytes(content[:-5])
        case "empty":
            (entry / "crops.npy").write_bytes(b"")
        case "no meta":
            (entry / "meta.json").unlink()
        case "torn meta":
            (entry / "meta.json").write_bytes((entry / "meta.json").read_bytes()[:40])
        case "other meta":
            (entry / "meta.json").write_text("[]")
    assert np.array_equal(load_crops(site, SPEC), decoded(site))
    assert entries(site) == [entry]


def test_damaged_images_are_one_line(site: Site) -> None:
    name = site.folder / site.images[0]
    name.write_bytes(name.read_bytes()[:200])
    edit_cases(site.folder, 2, image_sha256=hashlib.sha256(name.read_bytes()).hexdigest())
    with pytest.raises(BadInput, match=r"site hand-made: cases.csv row 2: image: truncated or damaged PNG") as caught:
        load_crops(load_site(site.folder), SPEC)
    assert "\n" not in str(caught.value)
    assert site.images[0] not in str(caught.value)


def test_a_state_folder_that_cannot_be_made(site: Site, tmp_path: Path) -> None:
    site.state.write_text("a file where a folder should be")
    with pytest.raises(RunFailed, match=r"cannot write the cache of crops \(.+\); free space or check permissions"):
        load_crops(site, SPEC)
    assert np.array_equal(load_crops(site, SPEC, folder=tmp_path / "elsewhere"), decoded(site))


def test_a_full_disk(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(cache, "_write_crops", full)
        with pytest.raises(RunFailed, match="No space left on device"):
            load_crops(site, SPEC)
    assert entries(site) == []
    assert np.array_equal(load_crops(site, SPEC), decoded(site))


SLOW_BUILDER = """
import sys, time
from pathlib import Path
from client.cache import load_crops
from client.site import load_site
from common.config import Crop

def slowly(done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[2]))

crops = load_crops(load_site(Path(sys.argv[1])), Crop(size=32), progress=slowly)
print("sum", int(crops.sum()), flush=True)
"""


def start(site: Site, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW_BUILDER, str(site.folder), str(pause)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def test_a_killed_builder_leaves_nothing_in_use(site: Site) -> None:
    builder = start(site, 0.2)
    assert builder.stdout is not None
    assert builder.stdout.readline() == "1\n"
    builder.stdout.readline()
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    builder.stdout.close()
    (left,) = entries(site)
    assert left.name.startswith(".building-")
    hour_ago = time.time() - 3600
    os.utime(left, (hour_ago, hour_ago))
    assert np.array_equal(load_crops(site, SPEC), decoded(site))
    assert [entry.name for entry in entries(site)] == [cache_key(site, SPEC)]


def test_two_builders_at_once_agree(site: Site) -> None:
    builders = [start(site, 0.02), start(site, 0.02)]
    said = [builder.communicate(timeout=60)[0].splitlines()[-1] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert said == [f"sum {decoded(site).sum()}"] * 2
    assert [entry.name for entry in entries(site)] == [cache_key(site, SPEC)]


def test_whoever_comes_second_uses_the_first(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    write = cache._write_crops

    def overtaken(path: Path, *rest: object) -> str:
        checksum = write(path, *rest)  # type: ignore[arg-type]
        monkeypatch.setattr(cache, "_write_crops", write)
        load_crops(site, SPEC)
        (entry,) = [entry for entry in entries(site) if not entry.name.startswith(".")]
        inodes.append((entry / "crops.npy").stat().st_ino)
        return checksum

    inodes: list[int] = []
    monkeypatch.setattr(cache, "_write_crops", overtaken)
    assert np.array_equal(load_crops(site, SPEC), decoded(site))
    (entry,) = entries(site)
    assert (entry / "crops.npy").stat().st_ino == inodes[0]


def test_a_live_builder_is_not_swept_away(site: Site) -> None:
    from client.staging import staged

    with staged(site.state / "cache", prefix=".building-") as work:
        os.utime(work, (0, 0))
        load_crops(site, SPEC)
        assert work.exists()
    assert not work.exists()


def with_spacing(folder: Path, *values: str) -> Site:
    """The hand-made site with a column of spacings; the last value goes on."""
    lines = (folder / "cases.csv").read_text(encoding="utf-8").splitlines()
    told = [values[min(n, len(values) - 1)] for n in range(len(lines) - 1)]
    lines = [f"{lines[0]},spacing_mm", *(f"{line},{value}" for line, value in zip(lines[1:], told, strict=True))]
    (folder / "cases.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return load_site(folder)


def test_a_margin_in_millimetres_is_part_of_the_key(site: Site) -> None:
    spec = Crop(size=32, margin_mm=4)
    before = cache_key(site, SPEC)
    fine, hash_before = with_spacing(site.folder, "0.5"), site.data_sha256
    assert cache_key(fine, SPEC) == before, "without millimetres the spacing changes no crop"
    assert fine.data_sha256 != hash_before
    coarse = replace(fine, spacings=(2.0,) * len(fine))
    assert len({cache_key(fine, spec), cache_key(coarse, spec), cache_key(fine, Crop(size=32, margin_mm=5))}) == 3
    assert not np.array_equal(load_crops(fine, spec), load_crops(coarse, spec))


def test_a_site_without_spacings_is_one_line(site: Site) -> None:
    with pytest.raises(BadInput, match=r"site hand-made: cases.csv row 2: no spacing_mm, which crop.margin_mm needs"):
        load_crops(site, Crop(size=32, margin_mm=4))
    partly = with_spacing(site.folder, "0.5", "0.5", "")
    with pytest.raises(BadInput, match=r"cases.csv row 4: no spacing_mm"):
        load_crops(partly, Crop(size=32, margin_mm=4))
    assert load_crops(partly, Crop(size=32, margin_mm=4, region="frame")).shape == (10, 32, 32)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "wide"])
def test_a_spacing_that_is_none(site: Site, value: str) -> None:
    with pytest.raises(BadInput, match="row 2: spacing_mm is no positive number"):
        with_spacing(site.folder, value)
