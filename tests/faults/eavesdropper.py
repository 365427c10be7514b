"""A relay between clients and a server that opens their TLS with the server's own key,
and keeps every byte that passes.
"""

from __future__ import annotations

__all__ = ["eavesdropping"]

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.processes import free_port
from server.certificates import certificates


@contextmanager
def eavesdropping(port: int, state: Path) -> Iterator[tuple[int, list[bytearray]]]:
    """Relay to the server on `port` that will use the certificates of `state`; gives the port to use instead, and what
    was heard.

    Clients say goodbye through the relay, so it must outlive them. What was heard is one entry for each connection and
    direction, as plain bytes of HTTP.
    """
    heard: list[bytearray] = []
    mine, loop = free_port(), asyncio.new_event_loop()
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    state.mkdir(parents=True, mode=0o700)
    files = certificates(state)
    accepting.load_cert_chain(files.server, files.key)
    calling = ssl.create_default_context(cafile=str(files.ca))
    kept: set[asyncio.Task[None] | None] = set()  # the loop itself does not keep tasks that wait

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.add(asyncio.current_task())
        with suppress(OSError):  # the server has ended before its clients
            beyond_reader, beyond_writer = await asyncio.open_connection("127.0.0.1", port, ssl=calling)
            await asyncio.gather(_pump(reader, beyond_writer, heard), _pump(beyond_reader, writer, heard))
        writer.close()
        kept.discard(asyncio.current_task())

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(asyncio.start_server(relay, "127.0.0.1", mine, ssl=accepting), loop).result(
        timeout=10
    )
    try:
        yield mine, heard
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: list[bytearray]) -> None:
    said = bytearray()
    heard.append(said)
    with suppress(OSError):  # the other end has hung up
        while content := await reader.read(1 << 16):
            said += content
            writer.write(content)
            await writer.drain()
    writer.close()
