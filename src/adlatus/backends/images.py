"""Images that messages link to, fetched on a client's behalf: only from the public Internet, and only images.

The guard is where connections are made: whatever a URL, a redirect or a name server says, no socket is opened to an
address that is not public.
"""

import asyncio
import base64
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import structlog
from aiohttp.connector import AddrInfoType

from adlatus.settings import host_name

log = structlog.get_logger(__name__)

TOTAL_S = 20.0
MAX_BYTES = 20 * 2**20
MAX_BYTES_TOGETHER = 64 * 2**20
MAX_REDIRECTS = 3
AT_A_TIME = 8

_GLOBAL = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_MARKS = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpeg"), (b"GIF87a", "gif"), (b"GIF89a", "gif"))


class ImageError(Exception):
    """A link that leads to no image; the message is for the client."""


@dataclass
class _Budget:
    """What the images of one request may hold together."""

    left_bytes: int


class Images:
    """Fetches images."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._places = asyncio.Semaphore(AT_A_TIME)

    async def fetch(self, urls: Iterable[str]) -> Mapping[str, str]:
        """A `data:` URL for each link. Raises `ImageError` for the first that leads to no image."""
        wanted, budget = list(dict.fromkeys(urls)), _Budget(MAX_BYTES_TOGETHER)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._outcome(url, budget)) for url in wanted]
        fetched = {}
        for url, task in zip(wanted, tasks, strict=True):
            if isinstance(outcome := task.result(), ImageError):
                raise outcome
            fetched[url] = outcome
        return fetched

    async def _outcome(self, url: str, budget: _Budget) -> str | ImageError:
        if not url.lower().startswith(("http://", "https://")):
            return _failed(url, "it is no http(s) address")
        try:
            async with self._places, self._session.get(url, max_redirects=MAX_REDIRECTS) as response:
                if response.status != 200:
                    return _failed(url, f"the answer was {response.status}")
                content = await _read(response, budget)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            log.info("image could not be fetched", host=host_name(url), error=type(error).__name__)
            return _failed(url, "nothing public answers there")
        shown = data_url(content)
        if budget.left_bytes < 0:
            return _failed(url, f"the images are larger than {MAX_BYTES_TOGETHER // 2**20} MiB together")
        if len(content) > MAX_BYTES:
            return _failed(url, f"it is larger than {MAX_BYTES // 2**20} MiB")
        return shown or _failed(url, "it is no PNG, JPEG, GIF or WebP image")


def data_url(content: bytes) -> str | None:
    """An image as a `data:` URL; None for what is no PNG, JPEG, GIF or WebP image."""
    kind = _kind(content)
    return kind and f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet, and not a way to an inner address in disguise."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast
    if ip.ipv4_mapped or ip in _NAT64:
        return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    inner = ip.sixtofour or (ip.teredo and ip.teredo[1])
    return ip in _GLOBAL and ip.is_global and (inner is None or is_public(str(inner)))


@asynccontextmanager
async def open_images(may_reach: Callable[[str], bool] = is_public) -> AsyncIterator[Images]:
    """A client without cookies, proxies or connections that are kept. `may_reach` says of an IP address whether."""

    def guarded(address: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, where = address
        if not may_reach(str(where[0])):
            raise OSError(f"{where[0]} is not a public address")
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        return opened

    connector = aiohttp.TCPConnector(socket_factory=guarded, force_close=True, use_dns_cache=False, limit=AT_A_TIME)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=TOTAL_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"accept": "image/*", "accept-encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
    ) as session:
        yield Images(session)


async def _read(response: aiohttp.ClientResponse, budget: _Budget) -> bytes:
    """The body, or as much of it as shows that it is too long."""
    content = bytearray()
    async for piece in response.content.iter_chunked(65_536):
        content += piece
        budget.left_bytes -= len(piece)
        if len(content) > MAX_BYTES or budget.left_bytes < 0:
            break
    return bytes(content)


def _kind(content: bytes) -> str | None:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "webp"
    return next((kind for mark, kind in _MARKS if content.startswith(mark)), None)


def _failed(url: str, why: str) -> ImageError:
    shown = url if len(url) <= 200 else f"{url[:197]}..."
    return ImageError(f"The image '{shown}' could not be fetched: {why}. Send it as a data: URL.")
