"""Watches a fork: what it asks of hosts, which programs it starts, and whether it reads what is none of its business."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

RAN = "ran"
"""A file of this name in a case's folder says that planted code ran."""

SECRET = "secret"
"""A file or folder with this word in its path must not be opened."""

_ASKS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")


def watch(place: Path) -> None:
    """Writes what happens into the file ``alarm`` of a case's place; its folder ``work`` is where code may be imported from.

    Arguments of commands are what a person typed: opening a file that one names is no alarm.
    """
    work = place / "work"
    sys.path.insert(0, str(work))
    os.environ["HF_HUB_OFFLINE"] = "0"
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_OFFLINE = False
    tempfile.tempdir = str(place)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        what = ""
        if event in _ASKS or event in _STARTS:
            what = f"{event} {str(arguments)[:150]}"
        elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            path = os.fsdecode(arguments[0])
            if SECRET in path or (Path(path).name == RAN and work in Path(path).absolute().parents):
                what = f"open {path[:150]}"
        if what:
            alarm = os.open(place / "alarm", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(alarm, what.encode() + b"\n")
            os.close(alarm)

    sys.addaudithook(hook)
