"""The files of a training run in its folder: its description, its state and its metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from igm_cli.core.checkpoint import ModelSpec, load_weights, read_spec, weights_fingerprint
from igm_cli.core.files import DESCRIPTION, foreign_name, read_json, write_atomically, write_json
from igm_cli.core.models import TEXT_TO_IMAGE
from igm_cli.core.training.config import TrainConfig
from igm_cli.core.validation import shown
from igm_cli.errors import IgmError, InputError

STATE, RUN, METRICS, BASELINE = "state.pt", "run.json", "metrics.jsonl", "baseline.json"
HASH = 70  # characters of a value in a message: a whole hash
SAMPLES = "pictures/samples.png"
"""Where ``--dry-run`` draws samples, before there is a run."""

# Options that may change between two calls of one run: its length, how often it reports, how it is compiled.
_FREE = {
    f"train.{name}"
    for name in ("steps", "log_every", "checkpoint_every", "picture_every", "calibration", "half", "compile")
}


def describe_run(
    spec: ModelSpec,
    config: TrainConfig,
    data: Mapping[str, Any],
    init: Path | None,
    companions: Sequence[Path] = (),
) -> dict[str, Any]:
    """Returns the description that identifies a run, as JSON.

    It holds the hashes of the checkpoints that the training starts from and adds to; the model's inference settings and
    provenance may change.

    Raises:
        MissingError: If ``init`` has no weights.
    """
    names = ("architecture", "options", "space", "schedule", "composition", "image_size", "concepts")
    return {
        "model": {name: getattr(spec, name) for name in names},
        "train": asdict(config),
        "data": dict(data),
        "init": weights_fingerprint(init) if init else None,
        "with": [weights_fingerprint(folder) for folder in companions],
    }


class RunRecord:
    """The files of one run next to its checkpoint: ``run.json``, ``state.pt`` and ``metrics.jsonl``.

    Args:
        folder: The run folder.
        description: Result of :func:`describe_run`.  Its data may lack the number of ``images``, which is known only
            once they are loaded.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any]) -> None:
        self.folder, self.description = folder, description

    def held(self, steps: int, spec: ModelSpec) -> int | None:
        """Returns how many steps of this run the folder holds, with a model that can be read; None if fewer than ``steps``.

        Anything missing, different or damaged counts as none, and the training itself reports or rewrites it; but a
        finished model needs no state.
        """
        try:
            self.refuse_other_run()
            told = read_json(self.folder / DESCRIPTION).get("info", {})
            held = [told["steps"]] if "steps" in told else []
            if self.has_state:
                held.append(torch.load(self.folder / STATE, map_location="meta", weights_only=True)["step"])
            if min(held) < steps:  # weights are written after their state
                return None
            if spec.architecture != TEXT_TO_IMAGE:
                read_spec(self.folder)
            load_weights(spec.build(), self.folder)
            return int(min(held))
        except Exception:
            return None

    @property
    def has_state(self) -> bool:
        """Whether there is a state that training goes on from."""
        return (self.folder / STATE).exists()

    def refuse_lost_state(self) -> None:
        """Raises an :class:`InputError` if there are weights but no state, as training would start anew and overwrite them."""
        if not self.has_state and any(self.folder.rglob("*.safetensors")):
            raise InputError(
                f"{self.folder} holds a trained model, but no {STATE} from which its training would go on; "
                f"use another --output, with --init {self.folder} to start from its weights"
            )

    def refuse_other_run(self) -> None:
        """Checks that the folder holds this run, or nothing.

        Raises:
            InputError: If it holds another run, or files that no run wrote.
        """
        data = self.description["data"]
        free = {*_FREE} if "images" in data else {*_FREE, "data.images"}
        files = {"files": data.get("files")}
        if files["files"]:  # the same files in a folder of another name
            free |= {f"data.parts[{number}].root" for number in range(len(data.get("parts", ())))}
        refuse_other(
            self.folder / RUN,
            self.description,
            what="run",
            option="--output",
            free=free,
            defaults={"init": None, "with": [], "train": asdict(TrainConfig()), "data": files},
            beside=(SAMPLES,),
            data={"data.files": "of other images or annotations than those given (data.files)"},
        )

    def load_state(self, take: Callable[[dict[str, Any]], None]) -> None:
        """Hands the state, if there is one, to ``take``; it is on the CPU, and ``take`` moves what a device needs.

        Raises:
            InputError: If it cannot be read or taken.
        """
        path = self.folder / STATE
        if not self.has_state:
            return
        try:
            take(torch.load(path, map_location="cpu", weights_only=True))
        except IgmError:
            raise
        except Exception as error:  # whatever a damaged file leads to
            way_out = "delete its folder to start again, or use another --output"
            raise InputError(f"{path} is damaged; {way_out}") from error

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Writes the state that a resumed run starts from."""

        def write(path: Path) -> None:
            with path.open("wb") as file:  # this reports a full disk
                torch.save(state, file)

        write_atomically(self.folder / STATE, write)

    def begin(self, step: int) -> None:
        """Writes the description, and drops metrics later than ``step``, where the run continues."""
        write_json(self.folder / RUN, self.description)
        _forget_after(self.folder / METRICS, step)

    def options(self) -> dict[str, bool | float | str]:
        """Returns the description as one table of plain values, with nested names joined by dots."""
        flat = _flat(json.loads(json.dumps(self.description)))
        return {
            key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
            for key, value in flat.items()
        }

    def metrics(self) -> list[dict[str, float]]:
        """Returns the metrics, one table per line; none without their file."""
        path = self.folder / METRICS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else ()
        return [json.loads(line) for line in lines]

    def validated(self, step: int) -> bool:
        """Returns whether metrics of a step are there that are not of the training itself."""
        return any(line["step"] == step and "loss" not in line for line in self.metrics())

    def add_metrics(self, line: Mapping[str, float]) -> None:
        """Adds a line to ``metrics.jsonl``; figures that are not finite are left out."""
        finite = {name: value for name, value in line.items() if math.isfinite(value)}
        with (self.folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite) + "\n")


def refuse_other(
    path: Path,
    description: Mapping[str, Any],
    *,
    what: str,
    option: str,
    free: Collection[str] = (),
    defaults: Mapping[str, Any] | None = None,
    beside: Sequence[str] = (),
    data: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Checks that a folder holds what is described, or nothing yet.

    Args:
        path: JSON file in it that describes its content.
        description: The expected content, as JSON.
        what: Name of the content, for the message.
        option: Option of the command line that names the folder.
        free: Keys that may differ, nested ones joined by dots.
        defaults: Values of keys that older files lack, used if the description has these keys.
        beside: Files that igm may have written there before.
        data: Keys that are fingerprints of data, with the words that say what differs.

    Raises:
        InputError: If it holds something else, naming the first key that differs.
    """
    if path.is_symlink() or not path.is_file():
        if name := foreign_name(path.parent, beside):
            raise InputError(f"{path.parent} holds {name} and no {what} of igm; use another {option}")
        return
    try:
        old = _flat(json.loads(path.read_text(encoding="utf-8")))
        if set(old) <= {""}:
            raise ValueError("it holds no table")
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is damaged; use another {option}") from error
    new = _flat(json.loads(json.dumps(description)))
    old = {key: value for key, value in _flat(dict(defaults or {})).items() if key in new} | old
    differing = [k for k in sorted(old | new) if old.get(k) != new.get(k) and k not in free]
    if differing:
        key = differing[0]
        values = f"with {key} = {shown(old.get(key), HASH)}, not {shown(new.get(key), HASH)}"
        same = "data" if key in data else "options"
        raise InputError(
            f"{path.parent} holds a {what} {data.get(key, values)}; use another {option} or the same {same}"
        )


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the values in nested tables, and in lists of tables, by their names: ``data.parts[0].seed``."""
    if isinstance(data, list) and data and all(isinstance(each, dict) for each in data):
        return {k: v for number, each in enumerate(data) for k, v in _flat(each, f"{prefix}[{number}]").items()}
    if isinstance(data, dict):
        flat: dict[str, Any] = {}
        for key, value in data.items():
            flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: data}


def _forget_after(path: Path, step: int) -> None:
    """Drops metric lines later than the resumed state, and a half-written last line.

    Raises:
        InputError: If there are lines that no run wrote; they stay.
    """
    if not path.is_file():
        return
    *lines, _ = path.read_bytes().split(b"\n")
    try:
        kept = b"".join(line + b"\n" for line in lines if json.loads(line)["step"] <= step)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} holds lines that no run of igm wrote; move it away") from error
    write_atomically(path, lambda temporary: temporary.write_bytes(kept))
