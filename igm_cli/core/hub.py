"""The Hugging Face hub: fetches files from it, and says in a sentence why it refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from igm_cli.core.files import HUB
from igm_cli.errors import IgmError, MissingError, kind_and_message

_NETWORK = ("httpx", "requests", "urllib3", "socket", "ssl")
"""Beginnings of the names of modules whose errors mean that the hub cannot be reached."""


def snapshot(name: str, patterns: Sequence[str], *, fetch: bool) -> Path:
    """Returns the folder of a repository's files in the hub's cache.

    Args:
        name: ``owner/name``.
        patterns: Patterns of the files wanted.
        fetch: Whether to ask the hub for missing or newer files.

    Raises:
        MissingError: If it is not cached and cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns), local_files_only=not fetch))
    except Exception as error:  # the hub's client raises its own, its transport's and the system's errors
        if fetch:
            raise refusal(name, error) from error
        raise MissingError(
            f"there is no folder {name!r} here; give a checkpoint folder, or {HUB}{name} if it is a model of the hub"
        ) from error


def refusal(name: str, error: BaseException, *, writing: bool = False) -> IgmError:
    """Returns the error to show for one of the hub's client about a repository ``owner/name`` that is read or written."""
    from huggingface_hub import constants, errors

    chain = list(_causes(error))
    if known := next((each for each in chain if isinstance(each, IgmError)), None):
        return known

    def has(kind: type[BaseException]) -> bool:
        return any(isinstance(each, kind) for each in chain)

    codes = [getattr(getattr(each, "response", None), "status_code", 0) for each in chain]
    code = next((number for number in codes if number), 0)
    of_network = any(type(each).__module__.startswith(_NETWORK) for each in chain)
    if has(errors.OfflineModeIsEnabled):
        says = f"HF_HUB_OFFLINE keeps igm from asking the hub for {name}; unset it"
    elif has(errors.GatedRepoError):
        says = f"{name} is gated: ask for access on its page at {constants.ENDPOINT}/{name}, log in by hf auth login, and try again"
    elif has(errors.LocalTokenNotFoundError):
        says = "you are not logged in to the hub; run hf auth login, or set HF_TOKEN"
    elif has(errors.RepositoryNotFoundError) or code == 404:
        says = f"the hub has no model {name} that you may see; check the name, or log in by hf auth login if it is private"
    elif code == 401:
        says = "the hub does not accept your token; log in again by hf auth login, or correct HF_TOKEN"
    elif code == 403 and writing:
        says = f"you may not write to {name} on the hub; check the owner, and that your token may write"
    elif code == 403:
        says = f"you may not read {name} on the hub; log in by hf auth login with a token that may"
    elif code:
        says = f"the hub answered {code} when it was asked for {name}; try again later"
    elif has(ConnectionError) or has(TimeoutError) or of_network:
        says = f"the hub cannot be reached for {name}; connect to the internet and try again"
    else:
        says = f"the hub's client failed for {name} ({kind_and_message(error)[:100]}); try again"
    return MissingError(says)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
