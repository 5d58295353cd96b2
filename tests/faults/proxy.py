"""What stands between a server and something that it needs, and may let nothing through: an outage at will."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, urlsplit, urlunsplit


class Proxy:
    """Passes bytes on, between whoever connects to its `port` and a target, unless it is told otherwise."""

    def __init__(self, target: tuple[str, int] | str) -> None:
        self._target = target
        self._refuses = False
        self._flows = threading.Event()
        self._flows.set()
        self._lost: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def refuse(self) -> None:
        """Cut what is connected, and take nothing new."""
        self._refuses = True
        self.cut()

    def hang(self) -> None:
        """Take everything, and pass nothing on until `pass_on`."""
        self._flows.clear()

    def pass_on(self) -> None:
        """Be no obstacle; what hung flows."""
        self._refuses = False
        self._flows.set()

    def cut(self) -> None:
        """Cut what is connected."""
        for connection in list(self._open):
            _cut(connection)

    def lose(self) -> None:
        """What is connected hears nothing more, and is not told; who connects anew is served."""
        self._lost |= self._open

    def close(self) -> None:
        _cut(self._listener)
        self.pass_on()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._refuses:
                    _cut(client)
                else:
                    threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._flows.wait()
        family = socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET
        server = socket.socket(family, socket.SOCK_STREAM)
        try:
            server.connect(self._target)
        except OSError:
            _cut(client)
            return
        self._open |= {client, server}
        threads = [
            threading.Thread(target=self._pump, args=ends, daemon=True) for ends in ((client, server), (server, client))
        ]
        for thread in threads:
            thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                self._flows.wait()
                if source not in self._lost:
                    sink.sendall(piece)
        if source not in self._lost:
            for end in (source, sink):
                self._open.discard(end)
                _cut(end)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def proxy_of(target: tuple[str, int] | str) -> Iterator[Proxy]:
    """A proxy until the block is left."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()


@contextmanager
def database_behind_proxy(dsn: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy of a PostgreSQL, and the DSN that leads through it."""
    parts = urlsplit(dsn)
    asked = parse_qs(parts.query)
    if "host" in asked:
        target: tuple[str, int] | str = f"{asked['host'][0]}/.s.PGSQL.{asked['port'][0]}"
    else:
        target = (str(parts.hostname), parts.port or 5432)
    with proxy_of(target) as proxy:
        login = parts.netloc.rpartition("@")[0]
        through = parts._replace(netloc=f"{login}@127.0.0.1:{proxy.port}", query="sslmode=disable")
        yield proxy, urlunsplit(through)
