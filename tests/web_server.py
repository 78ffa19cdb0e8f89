"""A server of this machine that gives what servers give: an image, redirects, errors, silence, and bytes without end.

As a script it prints its address, and serves until its standard input ends.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

from PIL import Image


def picture() -> bytes:
    """A grey picture of 32x32 pixels as PNG."""
    buffer = BytesIO()
    Image.new("RGB", (32, 32), (90, 90, 90)).save(buffer, "PNG")
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Answers by the path that is asked for."""

    def do_GET(self) -> None:
        kind = self.path.strip("/").partition("?")[0]
        try:
            getattr(self, f"give_{kind.replace('.', '_').replace('-', '_')}", self.give_404)()
        except OSError:  # whoever asked has enough
            self.close_connection = True

    def give_404(self) -> None:
        self.send_error(404)

    def give_503(self) -> None:
        self.send_error(503)

    def give_a_png(self, kind: str = "image/png", data: bytes = b"", says: int = 0) -> None:
        data = data or picture()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(says or len(data)))
        self.end_headers()
        self.wfile.write(data)

    def give_as_text(self) -> None:
        self.give_a_png("text/html; charset=none")

    def give_page(self) -> None:
        self.give_a_png("image/png", b"<!doctype html><title>not an image</title>")

    def give_paper_pdf(self) -> None:
        self.give_a_png("image/png", b"%PDF-1.7\n%\xe2\xe3\n1 0 obj\n")

    def give_empty(self) -> None:
        self.send_response(200)
        self.end_headers()

    def give_short(self) -> None:
        self.give_a_png(says=10_000)
        self.close_connection = True

    def give_hang(self) -> None:
        time.sleep(60)

    def give_hang_later(self) -> None:
        self.give_a_png(says=10_000)
        self.wfile.flush()
        time.sleep(60)

    def give_drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.drip()

    def drip(self) -> None:
        for _ in range(12_000):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)

    def give_drip_of_headers(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
        self.drip()

    def give_endless(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.end_headers()
        block = bytes(1 << 20)
        for _ in range(10_000):
            self.wfile.write(block)

    def lead(self, to: str) -> None:
        self.send_response(302)
        self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def give_moved(self) -> None:
        self.lead("/a.png")

    def give_loop(self) -> None:
        number = int(self.path.partition("?")[2] or 0)
        self.lead(f"/loop?{number + 1}")

    def give_to_file(self) -> None:
        self.lead("file:///etc/hostname")

    def give_to_ftp(self) -> None:
        self.lead("ftp://127.0.0.1:9/a.png")

    def give_no_http(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler] = Handler) -> Iterator[str]:
    """Gives the address of a server that runs meanwhile."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    with serving() as address:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()
        sys.stdin.read()
