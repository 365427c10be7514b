"""Files are whole or absent, lines are on the disk, and a full disk is one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import BadInput, RunFailed
from common.files import append_line, read_json, sha256_bytes, sha256_file, write_atomic, write_json
from server.records import Records, read_records


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.bin"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file.bin"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.bin"
    write_atomic(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunFailed, match=r"cannot write file\.bin: No space left on device"):
        write_atomic(path, b"new")
    with pytest.raises(RunFailed, match="No space left"):
        append_line(tmp_path / "lines", "one")
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["file.bin", "lines"]


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    program = (
        "import sys; from pathlib import Path; from common.files import write_atomic\n"
        "for i in range(10**6): write_atomic(Path(sys.argv[1]), bytes([i % 256]) * 300_000)"
    )
    root = Path(__file__).resolve().parents[2]
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)], cwd=root)
    try:
        seen = 0
        while seen < 40 and writer.poll() is None:
            if path.exists():
                content = path.read_bytes()
                assert len(content) == 300_000
                assert len(set(content)) == 1
                seen += 1
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert len(set(path.read_bytes())) == 1


def test_json_keeps_every_digit_and_refuses_nan(tmp_path: Path) -> None:
    value = {"b": [0.1 + 0.2, 1e-320], "a": None}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert list(read_json(tmp_path / "a.json")) == ["b", "a"]
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", float("nan"))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_json_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(BadInput, match=r"b\.json is missing"):
        read_json(tmp_path / "b.json")
    with pytest.raises(BadInput, match="cannot be read"):
        read_json(tmp_path)


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    records = Records(path)
    assert not records.continued
    records.add("first", run="r", why="1 − 2")
    whole = path.read_bytes()
    for cut in range(len(whole) + 1, 2 * len(whole)):
        path.write_bytes((whole + whole)[:cut])  # a kill in the middle of a line, or of a character
        again = Records(path)
        assert again.continued
        again.add("second", run="r", why="a\u2028b")
        assert [event["event"] for event in read_records(path)] in (["first", "second"], ["first", "first", "second"])


def test_what_is_made_again_counts_once(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    for number in (1, 2, 3):
        records.add("train", run="r", round=number, samples=8)
    records.add("train", run="other", round=3, samples=8)
    records.add("resumed", run="r", round=1)
    records.add("train", run="r", round=2, samples=8)
    rounds = [(e["run"], e["round"]) for e in read_records(records.path) if e["event"] == "train"]
    assert rounds == [("r", 1), ("other", 3), ("r", 2)]


def test_checksums_of_bytes_and_of_files_agree(tmp_path: Path) -> None:
    content = os.urandom((1 << 20) + 17)
    (tmp_path / "file").write_bytes(content)
    assert sha256_file(tmp_path / "file") == sha256_bytes(content)
