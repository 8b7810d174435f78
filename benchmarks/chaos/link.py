"""A TCP link to a server that can be made slow, be held, or be cut."""

import asyncio
import contextlib
import threading
from typing import Self

_CHUNK_BYTES = 64 * 1024
_HOST = "127.0.0.1"


class Link:
    """Forwards a free loopback port to `port` of this machine while the block lasts."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._delay_seconds = 0.0
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"link-{port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def slow(self, seconds: float) -> None:
        """Delay whatever is sent from now on, each way; 0 ends it."""
        self._delay_seconds = seconds

    def hold(self) -> None:
        """Pass nothing on. Connections stay, new ones are taken, and nobody hears anything: a black hole."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def release(self) -> None:
        """Pass on what was held, as a network does that sends lost packets again."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def cut(self) -> None:
        """Reset every connection, whatever is under way on it."""
        self._loop.call_soon_threadsafe(self._abort_all)

    async def _listen(self) -> asyncio.Server:
        self._flowing = asyncio.Event()
        self._flowing.set()
        return await asyncio.start_server(self._connected, _HOST, 0)

    async def _close(self) -> None:
        self._server.close()
        self._flowing.set()
        self._abort_all()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    def _abort_all(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        beyond: asyncio.StreamWriter | None = None
        try:
            await self._flowing.wait()
            there, beyond = await asyncio.open_connection(_HOST, self._target)
            self._writers.add(beyond)
            await asyncio.gather(self._pump(reader, beyond), self._pump(there, writer))
        except OSError:
            pass  # whoever connected sees the connection end, as without us
        finally:
            for end in (writer, beyond):
                if end is not None:
                    self._writers.discard(end)
                    end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            if self._delay_seconds:
                await asyncio.sleep(self._delay_seconds)
            await self._flowing.wait()
            writer.write(chunk)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
