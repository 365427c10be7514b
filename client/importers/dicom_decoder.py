"""Decoders of other hands, in a process of their own: JPEG lossless, JPEG-LS (gdcm) and JPEG 2000 (Pillow).

On a damaged stream these libraries may end their process, hang, or ask for all memory. Here that costs one child,
which is started again for the next frame. Messages in both directions are a length of 8 bytes and that many bytes: a
DICOM file of one frame on the way in, a .npy array on the way out, nothing where it cannot be decoded.
"""

from __future__ import annotations

__all__ = ["Decoder", "main"]

import io
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from client.importers.dicom_file import MAX_FRAME_PIXELS

_SECONDS = 20.0
"""Processor time that a frame may take."""
_MAX_MEMORY = 3 * 2**30
"""Address space of the child, in bytes."""
_MAX_ANSWER = 6 * MAX_FRAME_PIXELS + 4096
"""Longest answer, in bytes: 16-bit colours."""
_ROOT = str(Path(__file__).resolve().parents[2])
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")


class Decoder:
    """The child process, started at the first frame that needs it. Close it at the end."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def decoded(self, single: Dataset) -> npt.NDArray[Any]:
        """The samples of a picture of one frame, colours as RGB. Raises ValueError where it cannot be decoded."""
        file = io.BytesIO()
        pydicom.dcmwrite(file, single, enforce_file_format=False)
        try:
            answer = self._asked(file.getvalue())
        except (OSError, EOFError):
            self.close()
            raise ValueError("the decoder ended") from None
        if not answer:
            raise ValueError("cannot be decoded")
        array: npt.NDArray[Any] = np.load(io.BytesIO(answer), allow_pickle=False)
        return array

    def _asked(self, content: bytes) -> bytes:
        child = self._child = self._child or _started()
        assert child.stdin is not None
        assert child.stdout is not None
        _send(child.stdin, content)
        length = int.from_bytes(_received(child.stdout, 8), "big")
        if length > _MAX_ANSWER:
            raise EOFError
        return _received(child.stdout, length)

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _started() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "from client.importers.dicom_decoder import main; main()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([_ROOT, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)},
    )


def _send(pipe: IO[bytes], content: bytes) -> None:
    view = memoryview(len(content).to_bytes(8, "big") + content)
    while view:
        view = view[pipe.write(view) :]


def _received(pipe: IO[bytes], length: int) -> bytes:
    """Exactly `length` bytes. Raises EOFError where the other end is gone."""
    parts = []
    while length:
        part = pipe.read(min(length, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def main() -> None:
    """The child: answer until the parent is gone."""
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # libraries print where they like
    while len(head := sys.stdin.buffer.read(8)) == 8:
        content = sys.stdin.buffer.read(int.from_bytes(head, "big"))
        signal.setitimer(signal.ITIMER_PROF, _SECONDS)  # its signal ends the process, in the midst of a library too
        answer = _answer(content)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(out, answer)


def _answer(content: bytes) -> bytes:
    from pydicom.pixels import pixel_array

    file = io.BytesIO()
    try:
        single = pydicom.dcmread(io.BytesIO(content), force=True)
        plugin = "pillow" if single.file_meta.TransferSyntaxUID in _JPEG_2000 else "gdcm"
        np.save(file, pixel_array(single, index=0, decoding_plugin=plugin), allow_pickle=False)
    except Exception:  # whatever it is, the parent hears that there is no picture
        return b""
    return file.getvalue()
