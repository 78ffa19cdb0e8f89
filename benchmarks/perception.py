"""Perception of a bundled or trained position model on annotated images.

    python benchmarks/perception.py --data-root FOLDER_IN_CLEVR_LAYOUT [--objects 3-5] [--limit N]

Inverts every image twice, with K given and with K estimated, and prints perception rates by both
readings of the paper's criterion, the estimation error, exactness of K, seconds and network calls,
with 95 % bootstrap intervals over images (Wilson's where a rate is 0 or 100 %).  Lines are kept in
--output as they come, and a run cut short goes on there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from igm_cli.commands.models import resolve_model
from igm_cli.commands.session import model_fingerprint
from igm_cli.core.checkpoint import Checkpoint, load_checkpoint
from igm_cli.core.device import keep_freed_memory, resolve_device
from igm_cli.core.inversion import InversionSettings, invert
from igm_cli.core.metrics import bootstrap_interval, match
from igm_cli.imaging import to_model, to_rgb
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame


def main() -> None:
    """Parses, runs, prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dataset", default="clevr")
    parser.add_argument("--data-root", type=Path, help="none renders the dataset's own scenes")
    parser.add_argument("--split", default="val")
    parser.add_argument("--objects", default=None, help="e.g. 3-5")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--model", default=None)
    parser.add_argument("--fit", choices=("crop", "squash"), default="crop")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="inversion setting")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--output", type=Path, default=None, help="JSON lines, one an image")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    keep_freed_memory()
    device = resolve_device(args.device)
    folder = resolve_model(args.model, None if args.model else "pos")
    checkpoint = load_checkpoint(folder, device)
    overrides = {k: json.loads(v) for k, v in (item.split("=", 1) for item in args.set)}
    settings = InversionSettings.from_dict(checkpoint.inference, seed=args.seed, **overrides)
    options = {"objects": args.objects} if args.objects else {}
    data = registry.dataset(args.dataset).load(
        args.split, data_root=args.data_root, limit=args.limit, **options
    )
    source = args.data_root.absolute().name if args.data_root else args.dataset
    identity = json.dumps(
        [model_fingerprint(folder), source, args.split, settings.to_dict(), args.fit], sort_keys=True
    )
    rows = evaluate(checkpoint, data, settings, args.fit, device, args.output, identity)
    print(f"model {checkpoint.name}, {len(rows)} images, seed {args.seed}, settings {settings.to_dict()}")
    print(
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {device}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    for name, part in groups(rows).items():
        print(report(name, part))


def evaluate(
    checkpoint: Checkpoint,
    data: Any,
    settings: InversionSettings,
    fit: str,
    device: torch.device,
    output: Path | None,
    identity: str,
) -> list[dict[str, Any]]:
    """One record an image; those already in ``output`` under the same identity are taken from there."""
    parser = registry.concept_parser(checkpoint.concepts)
    done = read_done(output, identity)
    rows, started = [], time.monotonic()
    width, height = checkpoint.image_size
    for number, example in enumerate(data):
        name = example["file"]
        if name not in done:
            frame = Frame.fit(example["image"].size, width / height, fit)
            image = to_model(to_rgb(example["image"]), frame, checkpoint.image_size).to(device)
            truth = parser.parse(example, frame)
            done[name] = {"image": name, "run": identity, **score(checkpoint, image, truth, settings)}
            if output:
                with output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[name]) + "\n")
        rows.append(done[name])
        if number % 25 == 24:
            print(f"{number + 1} images, {time.monotonic() - started:.0f} s", flush=True)
    return rows


def read_done(output: Path | None, identity: str) -> dict[str, dict[str, Any]]:
    """Records of an earlier call with the same settings; a last line cut short is taken off the file."""
    if output is None or not output.is_file():
        return {}
    data = output.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(output, len(whole))
    lines = [json.loads(line) for line in whole.splitlines()]
    if any(line["run"] != identity for line in lines):
        raise SystemExit(f"{output} holds another configuration; name another --output")
    return {line["image"]: line for line in lines}


def score(
    checkpoint: Checkpoint, image: torch.Tensor, truth: torch.Tensor, settings: InversionSettings
) -> dict[str, Any]:
    """Both inversions of one image against its truth ``[L,D]``."""
    given = invert(checkpoint.denoiser, image, settings, k=len(truth), composition=checkpoint.composition)
    free = invert(checkpoint.denoiser, image, settings, composition=checkpoint.composition)
    pairs = match(given.concepts, truth)
    return {
        "objects": len(truth),
        "sum": int(pairs.perceived("sum").sum()),
        "mean": int(pairs.perceived("mean").sum()),
        "sum_by_squares": int(match(given.concepts, truth, squared=True).perceived("sum").sum()),
        "squared": float(pairs.squared.mean(dim=1).sum()),
        "found": given.concepts.tolist(),
        "found_free": free.concepts.tolist(),
        "truth": truth.tolist(),
        "k": free.k,
        "free_sum": int(match(free.concepts, truth).perceived("sum").sum()),
        "seconds_given": given.seconds,
        "seconds": free.seconds,
        "calls": free.network_calls,
        "draws": free.draws,
        "curve": [[p.k, p.error, p.stderr] for p in free.k_curve],
    }


def groups(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Images of 3-5 and of 6-8 objects, others, and all if there are several groups."""
    named: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        n = row["objects"]
        name = "3-5 objects" if 3 <= n <= 5 else "6-8 objects" if 6 <= n <= 8 else "other"
        named.setdefault(name, []).append(row)
    return named if len(named) == 1 else {**named, "all": rows}


def wilson_interval(hits: torch.Tensor, of: torch.Tensor, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a rate, every trial on its own."""
    n = max(1.0, float(of.sum()))
    p = float(hits.sum()) / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def report(name: str, rows: list[dict[str, Any]]) -> str:
    """The figures of a group in plain text."""

    def column(key: str) -> torch.Tensor:
        return torch.tensor([float(row[key]) for row in rows])

    def rate(hits: torch.Tensor, of: torch.Tensor) -> str:
        extreme = float(hits.sum()) in (0.0, float(of.sum()))  # no resample would differ
        low, high = wilson_interval(hits, of) if extreme else bootstrap_interval(hits, of)
        return f"{100 * float(hits.sum() / of.sum()):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"

    objects, one = column("objects"), torch.ones(len(rows))
    exact = (column("k") == objects).float()
    seconds = column("seconds")
    spread = float(seconds.std()) if len(rows) > 1 else 0.0
    lines = [
        f"{name}: {len(rows)} images, {int(objects.sum())} objects",
        f"  perception, K given, sum criterion   {rate(column('sum'), objects)}",
        f"  perception, K given, mean criterion  {rate(column('mean'), objects)}",
        f"    the same, matched by squares       {rate(column('sum_by_squares'), objects)}",
        f"  estimation error (mean MSE)          {float(column('squared').sum() / objects.sum()):.2e}",
        f"  K exact                              {rate(exact, one)}",
        f"  K mean absolute error                {float((column('k') - objects).abs().mean()):.3f}",
        f"  recall at estimated K, sum           {rate(column('free_sum'), objects)}",
        f"  precision at estimated K, sum        {rate(column('free_sum'), column('k'))}",
        f"  seconds, K estimated                 {seconds.mean():.3f} ± {spread:.3f} (std)",
        f"  seconds, K given                     {column('seconds_given').mean():.3f}",
        f"  network calls, K estimated           {column('calls').mean():.0f}",
        f"  noise draws, K estimated             {column('draws').mean():.1f}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
