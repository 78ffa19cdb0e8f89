"""Reads images that are not in files: from an address that a user typed, or from standard input."""

from __future__ import annotations

import http.client
import queue
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import IO, Any
from urllib.parse import quote, urlsplit

from igm_cli.errors import InputError, UsageError, counted, kind_and_message
from igm_cli.folders import ADDRESS
from igm_cli.imaging import MAX_BYTES

MAX_FETCHED = 1 << 28
"""Maximum bytes fetched from an address."""

SILENT, IN_ALL = 10.0, 120.0
"""Seconds that a server may stay silent, and that a whole fetch may take."""

MAX_REDIRECTS = 5

_BLOCK = 1 << 16


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a few redirects, only to http and https."""

    max_redirections = max_repeats = MAX_REDIRECTS

    def redirect_request(self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Returns the request that follows."""
        if not ADDRESS.match(newurl):
            raise InputError("it redirects to something that is not an http or https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(address: str, silent: float = SILENT, in_all: float = IN_ALL) -> bytes:
    """Returns the content of an http or https address, ignoring the type that the server declares.

    A daemon thread fetches it, because host look-up, or a server that sends a byte now and then, may never end.  The server
    may stay silent for ``silent`` seconds, and take ``in_all`` seconds in total.

    Raises:
        InputError: If it is not an address, cannot be fetched in time, or holds too much.
    """
    _check(address)
    answers: queue.Queue[bytes | Exception] = queue.Queue()
    end = time.monotonic() + in_all

    def work() -> None:
        try:
            answers.put(_download(address, silent, end, in_all))
        except Exception as error:  # from any network layer
            answers.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        answer = answers.get(timeout=in_all)
    except queue.Empty:
        answer = InputError(f"it takes more than {in_all:g} s")
    if isinstance(answer, bytes):
        return answer
    why = _reason(answer, silent)
    raise InputError(f"{address} cannot be fetched: {why}; check it, or save the image as a file") from answer


def _check(address: str) -> None:
    """Refuses what is not an address, and one with a password, which records would show."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or not address.isprintable() or " " in address:
        raise InputError(f"{address!r} is not an address; correct it")
    if "@" in parts.netloc:
        raise InputError(
            f"the address of {host} holds a name or password, which results would show; save the image as a file"
        )


def _download(address: str, silent: float, end: float, in_all: float) -> bytes:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler, _Redirects,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor,
    ):  # fmt: skip
        opener.add_handler(handler())
    encoded = quote(address, safe="%/:?#[]@!$&'()*+,;=~")
    request = urllib.request.Request(encoded, headers={"User-Agent": "igm", "Accept": "*/*"})
    blocks, size = [], 0
    with opener.open(request, timeout=silent) as response:
        while block := response.read1(_BLOCK):
            blocks.append(block)
            size += len(block)
            if size > MAX_FETCHED:
                raise InputError(f"it holds more than {MAX_FETCHED >> 20} MB")
            if time.monotonic() > end:
                raise InputError(f"it takes more than {in_all:g} s")
        if response.length:
            raise InputError(f"it ended {counted(response.length, 'byte')} too early")
    return b"".join(blocks)


def _reason(error: Exception, silent: float) -> str:
    """Returns why an address was not fetched."""
    if isinstance(error, urllib.error.HTTPError):
        if "infinite loop" in str(error.reason):
            return f"it redirects more than {MAX_REDIRECTS} times"
        if "not allowed" in str(error.reason):
            return "it redirects to something that is not an http or https address"
        return f"the server says {error.code} {error.reason}".rstrip()
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, socket.gaierror):
        return "no such host is known here"
    if isinstance(inner, TimeoutError):
        return f"the server said nothing for {silent:g} s"
    if isinstance(inner, ConnectionRefusedError):
        return "nothing answers there"
    if isinstance(inner, http.client.IncompleteRead):
        return "it ended too early"
    if isinstance(inner, http.client.BadStatusLine) and not isinstance(inner, ConnectionError):
        return "what answers there does not speak HTTP"
    if isinstance(inner, InputError):
        return str(inner)
    return kind_and_message(inner)[:120] if isinstance(inner, Exception) else str(inner)[:120]


def standard_input() -> bytes:
    """Returns the content of standard input.

    Raises:
        UsageError: If it is a terminal.
        InputError: If it holds too much.
    """
    if sys.stdin is None:  # closed by whatever started the process
        return b""
    if sys.stdin.isatty():
        raise UsageError(
            "- reads an image from standard input, which is a terminal; write - < image.png, or name the file"
        )
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(
            f"standard input holds more than {MAX_BYTES >> 30} GB, which is more than igm reads; make it smaller"
        )
    return data
