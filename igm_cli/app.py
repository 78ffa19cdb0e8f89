"""The command line: what there is, and what becomes of an error.

Nothing heavy is imported here or at the top of a command's module, so that ``igm --help`` is quick.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import signal
import sys
from typing import Annotated

import typer

from igm_cli import __version__
from igm_cli.errors import UsageError, sentence
from igm_cli.interrupts import Interrupted, ending_at_once, received
from igm_cli.output import Output, open_streams, process_rank

EPILOG = (
    "Exit codes: 0 done, 1 a bug of igm, 2 usage, 3 bad input or configuration, "
    "4 weights or data missing, 5 plugin, 130 or 143 interrupted."
)
COMMANDS = (
    "train",
    "invert",
    "estimate-k",
    "evaluate",
    "zero-shot",
    "generate",
    "decompose",
    "ui",
    "benchmark",
    "models",
    "push",
    "pull",
    "plugins",
    "doctor",
)


def command_line(*commands: str) -> typer.Typer:
    """The command line, with the commands named or all of them; the modules of the others are not imported."""
    app = typer.Typer(
        name="igm",
        help="Understand scenes by inverting compositional generative models.",
        epilog=EPILOG,
        invoke_without_command=True,
        rich_markup_mode="markdown",
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_igm)
    for name in commands or COMMANDS:
        function = name.replace("-", "_")
        app.command(name)(getattr(importlib.import_module(f"igm_cli.commands.{function}"), function))
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"igm {__version__}")
        raise typer.Exit


def _igm(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code."""
    open_streams()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with ending_at_once():
            _refuse_empty(given)
            _calm_libraries()
            _tell_of_hub(given)
            app = command_line(*[word for word in given[:1] if word in COMMANDS])
            result = app(args=arguments, prog_name="igm", standalone_mode=False)
            sys.stdout.flush()
            return result if isinstance(result, int) else 0
    except BaseException as error:
        if (number := received()) is not None:  # whatever a library made of it
            return _say(error if isinstance(error, Interrupted) else Interrupted(number))
        return _end(error)


def _end(error: BaseException) -> int:
    """Says what became of a call; returns the exit code."""
    if isinstance(error, BrokenPipeError):
        return _reader_left()
    if isinstance(error, SystemExit):  # Typer ends so when the reader of a pipe is gone
        return _reader_left() if error.code == 1 else int(error.code or 0)
    expected = isinstance(error, KeyboardInterrupt | Interrupted | typer.Abort | typer.TyperException)
    if not expected and (not isinstance(error, Exception) or os.environ.get("IGM_DEBUG", "") not in ("", "0")):
        raise error
    return _say(error)


def _say(error: BaseException) -> int:
    text, code = _sentence(error)
    if isinstance(error, Interrupted) and process_rank()[0]:
        return code  # of several processes one says it
    with contextlib.suppress(OSError, ValueError):  # of a terminal that was closed
        Output.error(text)
    return code


def _calm_libraries() -> None:
    """Keeps libraries from logging on stderr what no user can change, and the hub's client from bars where it is no terminal."""
    for name in ("torch.utils._pytree", "torchao"):  # as torchao is imported
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _refuse_empty(arguments: list[str]) -> None:
    """Refuses words that are empty, which a variable of a shell is that is not set."""
    for before, word in zip(["", *arguments], arguments, strict=False):
        if not word or (word.startswith("--") and word.partition("=")[1:] == ("=", "")):
            where = f"the value of {before}" if before.startswith("-") and not word else word or "an argument"
            raise UsageError(f"{where} is empty; give a value, or leave it out")


def _tell_of_hub(arguments: list[str]) -> None:
    """Says before it is done that the Hugging Face hub is asked, which only ``hf:owner/name`` makes igm do."""
    if arguments[:1] == ["push"]:  # it says so itself
        return
    for name in dict.fromkeys(
        word.partition("hf:")[2] for word in arguments if re.match(r"(?:[\w.-]+=)?hf:", word)
    ):
        Output().warn(f"looking for {name} in the cache of the Hugging Face hub, then on the hub")


def _sentence(error: BaseException) -> tuple[str, int]:
    """What a user reads of an error, and the exit code."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        error = Interrupted(signal.SIGINT)
    if isinstance(error, Interrupted):
        return f"interrupted; {error}", error.exit_code
    if isinstance(error, typer.TyperException):
        if error.exit_code != 2:
            return error.format_message(), error.exit_code
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "igm"
        return f"{_plainly(error.format_message().strip().rstrip('.'))}; see {command} --help", 2
    return sentence(error)


def _plainly(text: str) -> str:
    """Returns what Typer says of a value as igm says such things."""
    if not (told := re.fullmatch(r"Invalid value for '?(.+?)'?: (.*)", text, re.DOTALL)):
        return text
    what, why = told[1].replace("'", ""), told[2].removeprefix("Value error, ")
    if not why.startswith("Input should be "):
        return f"{what}: {why}"
    from igm_cli.core.validation import wanted

    return f"{what} must be {wanted(why)}"


def _reader_left() -> int:
    """Whoever read our output has enough: not an error, and nothing may be written any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
