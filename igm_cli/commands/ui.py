"""``igm ui``: a browser page for trying models."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any

from igm_cli.commands import options as o
from igm_cli.errors import OutputError, UsageError, cause, need
from igm_cli.interrupts import Interrupted
from igm_cli.output import Output


def ui(
    model: Annotated[
        list[str] | None,
        o.model(
            "A checkpoint or pipeline folder, or hf:owner/name of the hub, to choose from besides the bundled ones.",
            "MODEL",
        ),
    ] = None,
    host: Annotated[
        str, o.page("Address to listen on; any other than this machine's own lets others in.", "ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[
        int | None, o.page("Default: the first free port from 7860 on.", "N", min=1, max=65535)
    ] = None,
    no_browser: Annotated[bool, o.page("Only print the address of the page.", None, "--no-browser")] = False,
    device: o.Device = "auto",
) -> None:
    """Open a page in the browser: drop an image to see what is found in it, or write what to draw.

    The page is served to this machine alone unless --host says otherwise; nothing is sent elsewhere.  Ctrl-C ends it.
    """
    need("ui")
    sink = Output()
    from igm_cli.bundled import bundled, names_pipeline, resolve_model, resolve_pipeline
    from igm_cli.core.device import resolve_device
    from igm_cli.core.models.pipeline_files import find_pipeline
    from igm_cli.model import open_checkpoint

    resolve_device(device)
    given = list(dict.fromkeys(model or ()))
    for name in given:
        if names_pipeline(name, None):
            find_pipeline(resolve_pipeline(name)[1], weights=False)
        else:
            open_checkpoint(name, None, device)  # which refuses a model whose plugin is missing
    # Where a folder here has the name of a bundled model, this is its path.
    ours = {name: str(folder) if Path(name).exists() else name for name, folder in bundled().items()}
    known = list(dict.fromkeys([*given, ours[resolve_model(None, None).name], *ours.values()]))
    require_free(host, port)
    if not is_local(host):
        sink.warn(f"anyone who can reach {host} can use this page and this machine without a password")
    with tempfile.TemporaryDirectory(prefix="igm-ui-") as uploads:
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": uploads}
        from igm_cli.commands.ui_page import Workbench, page

        blocks = page(Workbench(known, device))
        try:
            url = serve(blocks, host, port, browser=not no_browser)
            sink.say(f"the page is at {url}; Ctrl-C ends it")
            threading.Event().wait()
        except Interrupted as end:
            raise Interrupted(end.number, "the page is closed") from end
        finally:
            blocks.close(verbose=False)


def serve(blocks: Any, host: str, port: int | None, *, browser: bool) -> str:
    """Serves a page in the background; returns its address."""
    import gradio as gr

    from igm_cli.imaging import MAX_BYTES

    # A port that another program took just now is told by what is raised, or the next port is taken.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not isinstance(record.msg, OSError))
    # No fonts come from the net.
    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
    try:
        _, url, _ = blocks.launch(
            server_name=host, server_port=port, inbrowser=browser, inline=False, share=False, quiet=True,
            prevent_thread_lock=True, theme=gr.themes.Default(**fonts), footer_links=[], run_history=False,
            enable_monitoring=False, mcp_server=False, ssr_mode=False, max_file_size=MAX_BYTES, pwa=False,
        )  # fmt: skip
    except OSError as error:  # without a number it is Gradio's, with its own advice
        raise _unservable(host, port, cause(error) if error.errno else "address already in use") from error
    except ValueError as error:
        raise UsageError(
            f"the page cannot reach itself at {host}, perhaps by a proxy; set NO_PROXY={host}, or choose another --host"
        ) from error
    return str(url)


def require_free(host: str, port: int | None) -> None:
    """Raises an :class:`OutputError` if an address is in use, not this machine's, or invalid, before anything is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(address)
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one
        why = cause(error) if isinstance(error, OSError) else "it is not the name of a machine"
        raise _unservable(host, port, why) from error


def _unservable(host: str, port: int | None, why: str) -> OutputError:
    where = f"port {port} of {host}" if port else host
    return OutputError(f"the page cannot be served at {where}: {why}; choose another --port or --host")


def is_local(host: str) -> bool:
    """Returns whether an address is reachable only from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
