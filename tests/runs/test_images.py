"""Images that are fetched for a client: what comes of good links and of bad ones. The guard lets the test's own in."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from adlatus.backends.images import MAX_BYTES, ImageError, Images, is_public, open_images
from tests.conftest import Loop

PNG = b"\x89PNG\r\n\x1a\n and the rest"
FILES = {
    "/a.png": PNG,
    "/b.jpg": b"\xff\xd8\xff\xe0 and the rest",
    "/c.gif": b"GIF89a and the rest",
    "/d.webp": b"RIFF\x00\x00\x00\x00WEBP and the rest",
    "/large.png": PNG + b"\0" * MAX_BYTES,
    **{f"/{number}.png": PNG + b"\0" * (MAX_BYTES - 1000) for number in range(4)},
    "/page.png": b"<html>not an image</html>",
    "/empty.png": b"",
}
MOVED = {"/moved": "/a.png", "/inside": "http://127.0.0.2:1/a.png", "/round": "/round", "/file": "file:///etc/passwd"}


class _Site(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(f"{self.path} {self.headers.get('cookie', '')}".strip())
        if self.path in MOVED:
            self.send_response(302)
            self.send_header("location", MOVED[self.path])
            self.send_header("set-cookie", "a=b")
            self.end_headers()
        elif self.path in FILES:
            self.send_response(200)
            self.end_headers()
            with suppress(ConnectionError):  # whoever has seen enough hangs up
                self.wfile.write(FILES[self.path])
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    _Site.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(5)


@contextmanager
def opened(loop: Loop, *allowed: str) -> Iterator[Images]:
    with loop.stack() as stack:
        yield loop.run(stack.enter_async_context(open_images(lambda address: address in allowed or is_public(address))))


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/a.png", "png"), ("/b.jpg", "jpeg"), ("/c.gif", "gif"), ("/d.webp", "webp"), ("/moved", "png")],
)
def test_an_image_becomes_a_data_url_of_its_kind(loop: Loop, site: str, path: str, kind: str) -> None:
    content = FILES[MOVED.get(path, path)]
    with opened(loop, "127.0.0.1") as images:
        fetched = loop.run(images.fetch([site + path]))
    assert fetched == {site + path: f"data:image/{kind};base64,{base64.b64encode(content).decode()}"}


def test_each_link_is_fetched_once_and_without_cookies(loop: Loop, site: str) -> None:
    with opened(loop, "127.0.0.1") as images:
        loop.run(images.fetch([f"{site}/moved", f"{site}/moved", f"{site}/b.jpg"]))
    assert sorted(_Site.asked) == ["/a.png", "/b.jpg", "/moved"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/nothing", "the answer was 404"),
        ("/large.png", "it is larger than 20 MiB"),
        ("/page.png", "it is no PNG, JPEG, GIF or WebP image"),
        ("/empty.png", "it is no PNG, JPEG, GIF or WebP image"),
        ("/inside", "nothing public answers there"),
        ("/round", "nothing public answers there"),
        ("/file", "nothing public answers there"),
    ],
)
def test_a_link_that_leads_to_no_image_is_told(loop: Loop, site: str, path: str, why: str) -> None:
    with opened(loop, "127.0.0.1") as images, pytest.raises(ImageError) as refused:
        loop.run(images.fetch([f"{site}/a.png", site + path]))
    assert str(refused.value) == f"The image '{site}{path}' could not be fetched: {why}. Send it as a data: URL."


def test_images_are_not_too_large_together(loop: Loop, site: str) -> None:
    urls = [f"{site}/{number}.png" for number in range(4)]
    with opened(loop, "127.0.0.1") as images:
        assert len(loop.run(images.fetch(urls[:3]))) == 3
        with pytest.raises(ImageError, match="the images are larger than 64 MiB together"):
            loop.run(images.fetch(urls))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        *((url, "it is no http") for url in ("", "x", "file:///etc/passwd", "ftp://127.0.0.1/a", "//127.0.0.1/a")),
        *((url, "nothing public answers there") for url in ("http://", "http://[", "http://2130706433/")),
    ],
)
def test_what_is_no_link_is_told(loop: Loop, url: str, why: str) -> None:
    with opened(loop) as images, pytest.raises(ImageError, match=f"could not be fetched: {why}"):
        loop.run(images.fetch([url]))


def test_no_connection_is_made_to_an_address_that_is_not_public(loop: Loop, site: str) -> None:
    hosts = ["127.0.0.1", "localhost", "127.1", "0.0.0.0", "[::ffff:127.0.0.1]", "localhost."]
    hosts += ["2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "0", "127.0.1", "[::1]", "[::]", "[::127.0.0.1]"]
    hosts += ["user:password@127.0.0.1", "8.8.8.8@127.0.0.1", "127.0.0.1#@8.8.8.8", "%31%32%37.0.0.1", "①②⑦.0.0.1"]
    hosts += ["[64:ff9b::7f00:1]", "[fe80::1]", "169.254.169.254", "127.0.0.1%2f@8.8.8.8", "localhost%00.example.com"]
    with opened(loop) as images:
        for host in hosts:
            with pytest.raises(ImageError, match="nothing public answers there"):
                loop.run(images.fetch([site.replace("127.0.0.1", host) + "/a.png"]))
    assert _Site.asked == []


def test_a_name_that_changes_its_address_reaches_no_inner_one(loop: Loop, site: str) -> None:
    """Each look at the guard is for the address that the socket is opened to: nothing is looked up again after it."""
    asked: list[str] = []

    def public_at_first(address: str) -> bool:
        asked.append(address)
        return len(asked) == 1

    with loop.stack() as stack:
        images = loop.run(stack.enter_async_context(open_images(public_at_first)))
        assert loop.run(images.fetch([f"{site}/a.png"]))
        with pytest.raises(ImageError, match="nothing public answers there"):
            loop.run(images.fetch([f"{site}/b.jpg"]))
    assert asked == ["127.0.0.1", "127.0.0.1"]
    assert _Site.asked == ["/a.png"]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *((address, True) for address in ("8.8.8.8", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808")),
        *((address, False) for address in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254")),
        *((address, False) for address in ("100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.1")),
        *((address, False) for address in ("::1", "::", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1")),
        *((address, False) for address in ("::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "::127.0.0.1")),
        *((address, False) for address in ("2002:7f00:1::", "2001:db8::1")),
    ],
)
def test_addresses_of_the_public_internet_are_known(address: str, public: bool) -> None:
    assert is_public(address) is public
