"""A way that takes time: a proxy on this machine that delivers every byte later, in order."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.server import free_port


def at_port(url: str, port: int) -> str:
    """The same database, by another way."""
    settings = conninfo_to_dict(make_conninfo(url, port=port))
    return f"postgresql://{settings['user']}@{settings['host']}:{port}/{settings['dbname']}"


class Distance:
    """Between a client and a server of this machine.

    :param port: the server's.
    :param round_trip: seconds, half of them in each direction.
    """

    def __init__(self, port: int, round_trip: float) -> None:
        self.round_trip = round_trip
        self.port = free_port()
        #: Until then, by `time.monotonic`, nothing is delivered.
        self._still_until = 0.0
        #: What ends a connection as soon as the server has it.
        self._cut_at = b""
        self._writers: list[asyncio.StreamWriter] = []
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="distance", daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def hiccup(self, seconds: float) -> None:
        """From now on nothing is delivered for a while, and then all of it."""
        self._still_until = time.monotonic() + seconds

    def cut_at(self, said: str) -> None:
        """The next connection on which this is said to the server is cut before the answer."""
        self._cut_at = said.encode()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda *_: None)  # connections end as they like
        listening = asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=1000)
        server = self._loop.run_until_complete(listening)
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # transports close with the loop's next rounds

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        # The handshake of TCP is a round trip as well.
        await asyncio.sleep(self.round_trip)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        self._writers.append(back)
        await asyncio.gather(self._carry(reader, back, writer), self._carry(there, writer))

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: asyncio.StreamWriter | None = None,
    ) -> None:
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            with suppress(OSError):
                while True:
                    due, data = await on_the_way.get()
                    while (left := max(due, self._still_until) - time.monotonic()) > 0:  # noqa: ASYNC110
                        await asyncio.sleep(left)
                    if not data:
                        writer.close()
                        return
                    writer.write(data)
                    await writer.drain()
            reader.feed_eof()  # nobody takes it any more

        delivering = asyncio.ensure_future(deliver())
        data = b"."
        while data:
            try:
                data = await reader.read(65_536)
            except OSError:
                data = b""
            if client is not None and self._cut_at and self._cut_at in data:
                self._cut_at = b""
                self._loop.call_later(0.75 * self.round_trip, client.transport.abort)
            on_the_way.put_nowait((time.monotonic() + self.round_trip / 2, data))
        await delivering
