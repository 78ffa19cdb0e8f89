"""The command line: the commands, and how errors are reported.

Nothing heavy is imported here or at the top of a command's module, to keep ``igm --help`` quick.
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
from igm_cli.errors import UsageError, debugging, sentence
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
    """Returns the command line with the given commands, or all of them; only their modules are imported."""
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
            _refuse_words(given)
            _calm_libraries()
            _tell_of_hub(given)
            app = command_line(*[word for word in given[:1] if word in COMMANDS])
            result = app(args=arguments, prog_name="igm", standalone_mode=False)
            sys.stdout.flush()
            return result if isinstance(result, int) else 0
    except BaseException as error:
        if (number := received()) is not None:  # even if a library turned it into another error
            return _say(error if isinstance(error, Interrupted) else Interrupted(number))
        return _end(error)


def _end(error: BaseException) -> int:
    """Reports how a call failed and returns the exit code."""
    if isinstance(error, BrokenPipeError):
        return _reader_left()
    if isinstance(error, SystemExit):  # Typer exits this way when the reader of a pipe is gone
        return _reader_left() if error.code == 1 else int(error.code or 0)
    expected = isinstance(error, KeyboardInterrupt | Interrupted | typer.Abort | typer.TyperException)
    if not expected and (not isinstance(error, Exception) or debugging()):
        raise error
    return _say(error)


def _say(error: BaseException) -> int:
    text, code = _sentence(error)
    if isinstance(error, Interrupted) and process_rank()[0]:
        return code  # only one of several processes reports it
    with contextlib.suppress(OSError, ValueError):  # if the terminal was closed
        Output.error(text)
    return code


def _calm_libraries() -> None:
    """Silences library messages on stderr that users can do nothing about, and the hub client's bars outside a terminal."""
    for name in ("torch.utils._pytree", "torchao"):  # logged when torchao is imported
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _refuse_words(arguments: list[str]) -> None:
    """Refuses empty arguments, which come from unset shell variables, and files that look like options."""
    for before, word in zip(["", *arguments], arguments, strict=False):
        if not word or (word.startswith("--") and word.partition("=")[1:] == ("=", "")):
            where = f"the value of {before}" if before.startswith("-") and not word else word or "an argument"
            raise UsageError(f"{where} is empty; give a value, or leave it out")
    for word in arguments[: arguments.index("--") if "--" in arguments else None]:
        # Of a name that is too long, Path.is_file raises an error.
        if word.startswith("-") and "." in word and os.path.isfile(word):  # noqa: PTH113
            raise UsageError(
                f"{word} is read as an option, although a file has this name; write ./{word} for the file"
            )


def _tell_of_hub(arguments: list[str]) -> None:
    """Announces requests to the Hugging Face hub, which igm makes only for ``hf:owner/name``."""
    if arguments[:1] == ["push"]:  # it says so itself
        return
    for name in dict.fromkeys(
        word.partition("hf:")[2] for word in arguments if re.match(r"(?:[\w.-]+=)?hf:", word)
    ):
        Output().warn(f"looking for {name} in the cache of the Hugging Face hub, then on the hub")


def _sentence(error: BaseException) -> tuple[str, int]:
    """Returns the message shown for an error, and the exit code."""
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
    """Rewords a Typer message about a value in igm's style."""
    if not (told := re.fullmatch(r"Invalid value for '?(.+?)'?: (.*)", text, re.DOTALL)):
        return text
    what, why = told[1].replace("'", ""), told[2].removeprefix("Value error, ")
    if not why.startswith("Input should be "):
        return f"{what}: {why}"
    from igm_cli.core.validation import wanted

    return f"{what} must be {wanted(why)}"


def _reader_left() -> int:
    """Stops writing because the reader closed the pipe, which is not an error; returns the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
