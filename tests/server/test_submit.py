"""Following a run: what the records say counts, and silence does not last for ever."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

import server.submit
from common.config import Experiment
from common.errors import BadInput, RunFailed
from common.processes import flower_command, flower_environment
from common.tasks import Task
from server.control import Control, Progressing, write_thin_app
from server.submit import follow, submit


class FakeControl(Control):
    """A server on which a run appends `lines` to the records, and then says `status`."""

    lines: tuple[dict[str, object], ...] = ()
    status = "running"
    there = True
    stopped = 0
    records: Path

    def start(self, *_: object, **__: object) -> str:
        with self.records.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in self.lines)
        return "7"

    def alive(self) -> bool:
        return self.there

    def look(self, _run: str) -> Progressing:
        return Progressing(self.status, "")

    def stop(self, _run: str) -> None:
        type(self).stopped += 1


def followed(
    folder: Path, *lines: dict[str, object], status: str = "running", there: bool = True, timeout: float | None = None
) -> int:
    class Mine(FakeControl):
        stopped = 0

    Mine.lines, Mine.status, Mine.there, Mine.records = lines, status, there, folder / "records.jsonl"
    task = Task("lump", ("benign", "malignant"), "malignant")
    try:
        control = Mine(folder, "127.0.0.1:1", None)
        return follow(control, folder, folder, Experiment("tiny", task), {}, timeout=timeout)
    except (BadInput, RunFailed):
        assert Mine.stopped == 1
        raise


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_GLANCE_SECONDS", "_ALIVE_SECONDS", "_LOOK_SECONDS", "_DEAD_SECONDS"):
        monkeypatch.setattr(server.submit, name, 0.05)


def test_a_good_end_is_zero(tmp_path: Path) -> None:
    assert followed(tmp_path, {"event": "round", "round": 1}, {"event": "end", "ok": True}) == 0


def test_only_an_end_of_this_submission_counts(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"event": "end", "ok": true}\n')
    with pytest.raises(RunFailed, match="nobody learned"):
        followed(tmp_path, {"event": "end", "ok": False, "why": "nobody learned", "exit_code": 1})


def test_bad_input_that_only_the_server_saw_stays_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="make them equal"):
        followed(tmp_path, {"event": "end", "ok": False, "why": "make them equal", "exit_code": 2})


def test_completed_without_an_end_in_the_records_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="ended without a result"):
        followed(tmp_path, {"event": "round", "round": 1}, status="finished:completed")


def test_a_dead_server_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="server stopped during the run"):
        followed(tmp_path, {"event": "round", "round": 1}, there=False)


def test_a_run_without_an_end_meets_the_time_limit(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="did not end within the time given"):
        followed(tmp_path, timeout=0.3)


def test_silence_beyond_all_deadlines_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.submit, "_SLACK_SECONDS", -1e9)
    with pytest.raises(RunFailed, match="nothing happened"):
        followed(tmp_path)


def test_submitting_what_is_not_prepared_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no run folder"):
        submit(tmp_path, state=tmp_path)


def test_the_bundle_that_travels_holds_no_code_and_no_path(tmp_path: Path) -> None:
    app = write_thin_app(tmp_path / "app")
    command = [flower_command("flwr"), "build", "--app", str(app)]
    environment = flower_environment(tmp_path / "home")
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=60)
    (bundle,) = tmp_path.glob("*.fab")
    assert bundle.stat().st_size < 2000
    with zipfile.ZipFile(bundle) as archive:
        assert sorted(archive.namelist()) == [".info/CONTENT", "pyproject.toml"]
        assert str(tmp_path).encode() not in archive.read("pyproject.toml")
