"""Sockets to serve on, bound before anything is started, so that a taken port is known at once; servers for them."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from adlatus.errors import StartupError


class GuestServer(uvicorn.Server):
    """A server inside somebody else's event loop, whose signals are not its own: a stop has to reach the others too."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int, advice: str) -> socket.socket:
    """A listening socket. Raises `StartupError` with `advice`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(2048)  # before that two servers may bind the same port
    except OSError as error:
        listener.close()
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror or error}. {advice}") from error
    return listener


def shown(listener: socket.socket) -> str:
    """The address of a socket as URLs have it."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
