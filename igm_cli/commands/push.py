"""``igm push``: shares a model on the Hugging Face hub, with a card that describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from igm_cli.bundled import find_folder, is_pipeline
from igm_cli.commands import options as o
from igm_cli.core.files import (
    CHECKPOINT,
    DESCRIPTION,
    HUB,
    PIPELINE,
    home_expanded,
    read_json,
    write_atomically,
)
from igm_cli.errors import IgmError, InputError, MissingError, UsageError
from igm_cli.output import Output

CARD = "README.md"
_OF_PART = ("*.json", "*.txt", "*.model", "*.safetensors")


def push(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model: a folder such as runs/mine, or a bundled name.")
    ],
    to: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make it visible to you alone.")] = False,
    licence: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Licence, as the hub names it: mit, cc-by-4.0.  Default: what the model says."
        ),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Your own README.md, instead of the card that igm writes."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the card to a folder, and upload nothing.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="Folder for --dry-run.  Default: push/NAME."),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Share a model on the Hugging Face hub, with a model card that igm writes.

    Only the description and the weights are uploaded.  Log in first with hf auth login.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import LocalTokenNotFoundError

    from igm_cli.api import load
    from igm_cli.commands import model_card
    from igm_cli.core.hub import refusal

    sink, name = Output(as_json=as_json), model_card.repository(to)
    if output is not None and not dry_run:
        o.refuse("the card of --dry-run; add that or leave it out", output=output)
    folder = find_folder(model)
    files = files_of(folder)
    text = model_card.card(folder, f"{HUB}{name}", licence) if card is None else o.read_text(card)
    load(folder, device="cpu")  # refuses to share a model that cannot be opened
    if why := (read_json(folder / DESCRIPTION).get("info") or {}).get("not_learned"):
        sink.warn(f"{model} is hardly of use to others: of its training its igm.json says that {why}")
    sizes = {path: file.stat().st_size for path, file in files.items()} | {CARD: len(text.encode())}
    written = None
    if dry_run:
        written = home_expanded(output or Path("push", name.rpartition("/")[2])) / CARD
        _write_card(written, text)
        address = f"{constants.ENDPOINT}/{name}"
    else:
        if get_token() is None:
            raise refusal(name, LocalTokenNotFoundError(), writing=True)
        sink.note(f"igm: uploading {size_text(sum(sizes.values()))} to {name} on the Hugging Face hub")
        address = _upload(name, files, text, private)
    record: dict[str, Any] = {"model": model, "repository": name, "address": address, "private": private}
    record |= {"files": sizes, "card": str(written) if written else None, "uploaded": not dry_run}
    sink.result({"schema": "igm.push/1", **record})
    if written:
        sink.table("what would be uploaded", ["file", "size"], [[f, size_text(s)] for f, s in sizes.items()])
        sink.say(f"nothing was uploaded; the card is {written}, edit it and give it by --card {written}")
    else:
        sink.say(f"{address} has it; use it by --model {HUB}{name}")


def files_of(folder: Path) -> dict[str, Path]:
    """Returns the files needed to use a model, by their names in the repository.

    Raises:
        MissingError: If one is missing.
        InputError: If one is a link out of the folder.
    """
    if is_pipeline(folder):
        from igm_cli.core.models.pipeline_files import read_index

        parts = read_index(folder).parts
        found = [folder / DESCRIPTION, folder / PIPELINE]
        found += [
            path for part in parts for pattern in _OF_PART for path in sorted((folder / part).glob(pattern))
        ]
    else:
        found = [folder / name for name in CHECKPOINT]
    in_cache = folder.resolve().parent.name == "snapshots"  # the hub's, whose files are links to its blobs
    home = folder.resolve().parents[2] if in_cache else folder.resolve()
    for path in found:
        if not path.is_file():
            raise MissingError(f"{folder} has no {path.relative_to(folder)}; give a complete model")
        if home not in path.resolve().parents:
            raise InputError(f"{path} is a link to a file elsewhere, which is not uploaded; copy the file here")
    return {path.relative_to(folder).as_posix(): path for path in found}


def _write_card(path: Path, text: str) -> None:
    """Writes a card; refuses to replace a different one, which may have been edited."""
    if path.exists() and not (path.is_file() and path.read_bytes() == text.encode()):
        raise UsageError(f"{path} is there already and differs; remove it, or choose another folder with -o")
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _upload(name: str, files: dict[str, Path], card: str, private: bool) -> str:
    """Creates the repository if needed and adds the files in one commit; returns the address of its page.

    Raises:
        UsageError: If the repository holds other files than igm's, or is public but should be private.
        MissingError: If the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    from igm_cli import __version__
    from igm_cli.core.hub import refusal

    hub = HfApi()
    try:
        page = hub.create_repo(name, private=private or None, exist_ok=True)
        there = hub.model_info(name)
        names = {each.rfilename for each in there.siblings or ()} - {".gitattributes"}
        if private and not there.private:
            raise UsageError(
                f"{name} is there already and public; make it private in its settings, or choose another name"
            )
        if names and DESCRIPTION not in names:
            raise UsageError(
                f"{name} holds files that are not igm's, such as {min(names)}; choose another name"
            )
        add = [CommitOperationAdd(path, str(file)) for path, file in files.items()]
        add.append(CommitOperationAdd(CARD, card.encode()))
        hub.create_commit(name, add, commit_message=f"A model of igm {__version__}")
    except IgmError:
        raise
    except ValueError as error:
        if "metadata in README" in str(error):
            says = " ".join(str(error).split())
            raise InputError(f"the hub refuses the head of the card: {says[:150]}; correct it") from error
        raise refusal(name, error, writing=True) from error
    except Exception as error:  # from the hub's client, its transport or the system
        raise refusal(name, error, writing=True) from error
    return str(page)


def size_text(size: float) -> str:
    """Returns a number of bytes in a readable unit."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
