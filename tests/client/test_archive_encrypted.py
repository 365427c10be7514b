"""Encrypted zips, of both kinds: read with the right password, and one clear line, which never tells it, without."""

from __future__ import annotations

import random
import stat
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import pyzipper

from client.importers import import_site
from client.importers.archive import open_archive
from common.errors import BadInput
from tests.client.zipcrypto import write_zipcrypto

PASSWORD = "correct horse pässword"
MEMBERS = {f"Döße/Ärzte {n} 画像.bin": random.Random(n).randbytes(500 * n) + bytes(3000) for n in range(1, 12)}

Writer = Callable[[Path, dict[str, bytes]], Path]


def zipcrypto(path: Path, members: dict[str, bytes]) -> Path:
    return write_zipcrypto(path, members, PASSWORD.encode())


def aes(path: Path, members: dict[str, bytes], bits: int = 256) -> Path:
    with pyzipper.AESZipFile(path, "w", compression=pyzipper.ZIP_DEFLATED) as archive:
        archive.setpassword(PASSWORD.encode())
        archive.setencryption(pyzipper.WZ_AES, nbits=bits)
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def aes128(path: Path, members: dict[str, bytes]) -> Path:
    return aes(path, members, bits=128)


def password(folder: Path, content: bytes = PASSWORD.encode()) -> str:
    (folder / "password.txt").write_bytes(content)
    return str(folder / "password.txt")


def read(path: Path, password_file: str | None = None) -> dict[str, bytes]:
    with open_archive(path, label="archive a", password_file=password_file) as archive:
        return {str(member.path): member.read() for member in archive.members()}


both = pytest.mark.parametrize("write", [zipcrypto, aes, aes128])


def test_our_writer_writes_what_the_standard_library_reads(tmp_path: Path) -> None:
    with zipfile.ZipFile(zipcrypto(tmp_path / "a.zip", MEMBERS)) as archive:
        assert {name: archive.read(name, PASSWORD.encode()) for name in archive.namelist()} == MEMBERS


@both
@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n", b"\nsecond line\n"])
def test_the_right_password(tmp_path: Path, write: Writer, ending: bytes) -> None:
    path = write(tmp_path / "a.zip", MEMBERS)
    assert read(path, password(tmp_path, PASSWORD.encode() + ending)) == MEMBERS
    assert read(path, password(tmp_path, b"\xef\xbb\xbf" + PASSWORD.encode() + ending)) == MEMBERS
    with open_archive(path, label="a", password_file=password(tmp_path)) as archive:
        assert [member.size for member in archive.members()] == [len(content) for content in MEMBERS.values()]


def test_a_password_for_a_plain_zip_or_folder_does_no_harm(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", b"x")
    assert read(tmp_path / "a.zip", password(tmp_path)) == {"a": b"x"}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a").write_bytes(b"x")
    assert read(tmp_path / "folder", password(tmp_path)) == {"a": b"x"}


@both
def test_a_wrong_password_is_found_before_anything_is_read(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "a.zip", MEMBERS)
    for number in range(300):  # ZipCrypto's own check of a single member lets one in 256 pass
        wrong = f"wrong {number}"
        with (
            pytest.raises(BadInput) as caught,
            open_archive(path, label="archive a", password_file=password(tmp_path, wrong.encode())),
        ):
            pass
        message = str(caught.value)
        assert message.startswith("archive a, member ")
        assert "the password does not fit; correct the first line of the password file" in message
        assert wrong not in message
        if write is not zipcrypto and number > 3:
            break


@both
def test_no_password(tmp_path: Path, write: Writer) -> None:
    with pytest.raises(BadInput, match=r"^archive a, member 1: encrypted; name a file .*\(--password-file\)$"):
        read(write(tmp_path / "a.zip", MEMBERS))


def test_a_wrong_password_that_passes_the_check_is_found_when_it_reads(tmp_path: Path) -> None:
    path = zipcrypto(tmp_path / "a.zip", {"a": bytes(3000)})
    said = set()
    for number in range(1000):
        with pytest.raises(BadInput) as caught:
            read(path, password(tmp_path, f"wrong {number}".encode()))
        said.add(str(caught.value))
    assert said == {
        "archive a, member 1: the password does not fit; correct the first line of the password file",
        "archive a, member 1: cannot be read: damaged, or its password is another one; get the archive again",
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "first line of the password file is empty"),
        (b"\nsecond", "first line of the password file is empty"),
        (None, r"password file cannot be read \(No such file or directory\); put the archive's password on"),
    ],
)
def test_a_password_file_that_is_none(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = aes(tmp_path / "a.zip", {"a": b"x"})
    file = password(tmp_path, content) if content is not None else str(tmp_path / "absent")
    with pytest.raises(BadInput, match=says):
        read(path, file)
    with pytest.raises(BadInput, match=r"password file cannot be read \(Is a directory\)"):
        read(path, str(tmp_path))
    with pytest.raises(BadInput, match="password file cannot be read"):
        read(path, "\0")


@both
def test_the_checks_of_names_stand_before_the_password(tmp_path: Path, write: Writer) -> None:
    for name, says in (
        ("../up", "leads out of the archive"),
        ("/etc/passwd", "leads out of the archive"),
        ("C:/x", "leads out of the archive"),
        ("döße/ärzte 1 画像.BIN", "bears the name of an earlier member"),
        ("Do\u0308ße/A\u0308rzte 1 画像.bin", "bears the name of an earlier member"),
    ):
        path = write(tmp_path / "a.zip", {**MEMBERS, name: b"x"})
        for file in (None, password(tmp_path), password(tmp_path, b"wrong")):
            with pytest.raises(BadInput, match=rf"member 12: .*{says}"):
                read(path, file)


def test_links_and_bombs_are_refused_in_encrypted_zips_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = aes(tmp_path / "a.zip", {"a": bytes(2 << 20)})
    with monkeypatch.context() as patched:
        patched.setattr("client.importers.archive.MAX_MEMBER_BYTES", 1 << 20)
        with pytest.raises(BadInput, match="member 1: unpacks to more than 1 MiB"):
            read(path, password(tmp_path))
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BadInput, match="member 2: a symbolic link"):
        read(path, password(tmp_path))


def test_a_member_that_understates_its_size_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.importers.archive.MAX_MEMBER_BYTES", 1 << 20)
    path = write_zipcrypto(tmp_path / "a.zip", {"a": bytes(32 << 20)}, PASSWORD.encode())
    content = path.read_bytes()
    path.write_bytes(content.replace((32 << 20).to_bytes(4, "little"), (1 << 10).to_bytes(4, "little")))
    tracemalloc.start()
    with pytest.raises(BadInput, match="archive a, member 1: "):
        read(path, password(tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


@both
def test_damage_anywhere_is_one_line(tmp_path: Path, write: Writer) -> None:
    """Whatever 120 random changes of bytes do, only the project's own error comes out, without the password."""
    path = write(tmp_path / "a.zip", {f"a/{n}": bytes(range(256)) for n in range(3)})
    content, rng, said = path.read_bytes(), random.Random(0), []
    for _ in range(120):
        harmed = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            harmed[rng.randrange(len(harmed))] = rng.randrange(256)
        path.write_bytes(harmed)
        try:
            read(path, password(tmp_path))
        except BadInput as error:
            said.append(str(error))
    assert len(said) > 40
    assert not any("\n" in line or PASSWORD in line for line in said)


def test_encrypted_members_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = aes(tmp_path / "a.zip", {f"{n}": bytes(4 << 20) for n in range(8)})
    with open_archive(path, label="a", password_file=password(tmp_path)) as archive:
        tracemalloc.start()
        for member in archive.members():
            assert len(member.read()) == 4 << 20
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 12 << 20
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.zip", "password.txt"]


@pytest.mark.parametrize("format", ["lymphus", "behsof", "smclud", "busbra"])
def test_every_format_that_comes_as_a_zip_asks_for_the_password(tmp_path: Path, format: str) -> None:
    path = aes(tmp_path / "a.zip", {"a/b": b"x"})
    with pytest.raises(BadInput, match=r"member 1: encrypted; .*--password-file"):
        import_site(format, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
