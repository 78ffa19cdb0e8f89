"""Measures on a GPU what needs one, and compares it with the CPU; gpu_check.sh starts it.

Every step is a separate process with a time limit, and its findings go to results.json as they come.  So a step that
fails, hangs or is cut off loses neither the findings of the others nor its own so far.
"""

# ruff: noqa: B023  (functions made in a loop are called at once)
from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from igm_cli.core.device import resolve_device
from igm_cli.core.files import write_json
from igm_cli.errors import IgmError

DEVICE = os.environ.get("DEVICE", "cuda")
GPU = DEVICE != "cpu"
ROOT, OUT, WORK = (Path(os.environ.get(name, ".")).absolute() for name in ("ROOT", "OUT", "WORK"))
SECONDS_IN_ALL = float(os.environ.get("SECONDS_IN_ALL", "470" if GPU else "3600"))
STARTED = float(os.environ.get("STARTED", time.time()))
SEED = 20_011
FEW = {} if GPU else {"draws": 2, "max_draws": 2}
"""Inversion settings that are fast on a CPU."""


def full(on_gpu: Any, on_cpu: Any) -> Any:
    """Returns a size: the full one on a GPU, a tiny one on a CPU."""
    return on_gpu if GPU else on_cpu


class Notes:
    """A step's findings so far, written to disk at once."""

    def __init__(self, path: Path) -> None:
        self.path, self.data = path, {}

    def __setitem__(self, key: str, value: Any) -> None:
        self.data[key] = value
        write_json(self.path, self.data)  # complete at any time

    def attempt(self, key: str, part: Callable[[], Any]) -> None:
        """Notes the result of a part of a step, or why it failed; the other parts continue."""
        try:
            self[key] = part()
        except Exception as error:
            traceback.print_exc()
            self[key] = {"failed": f"{type(error).__name__}: {error}"[:500]}


STEPS: dict[str, tuple[Callable[[Notes], None], float, bool]] = {}
"""All steps, the important ones first: function, time limit in seconds, and whether it measures time."""


def step(seconds: float, *, timed: bool = True) -> Callable[[Callable[[Notes], None]], None]:
    """Registers a function as a step; steps that measure no time may run concurrently."""

    def register(run: Callable[[Notes], None]) -> None:
        STEPS[run.__name__] = run, seconds, timed

    return register


# ---- what steps share ------------------------------------------------------------------------------------------------


def timed(count: int, run: Callable[[], Any], repeats: int = 1) -> dict[str, float]:
    """Returns seconds of the fastest repeat, images (or problems) per second, and the peak memory of tensors."""
    import torch

    def once() -> float:
        began = time.perf_counter()
        run()
        if GPU:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    if GPU:
        torch.cuda.reset_peak_memory_stats()
    seconds = min(once() for _ in range(repeats))
    found = {"seconds": round(seconds, 4), "per_second": round(count / seconds, 2)}
    return {**found, "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 3)} if GPU else found


def profiled(run: Callable[[], Any], images: int) -> dict[str, Any]:
    """Returns kernels and host waits per image, and the share of the time in which the GPU computes.

    On a CPU it counts torch operators instead of kernels, and tensors converted to numbers.
    """
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if GPU else [])]) as watched:
        run()
        wall = time.perf_counter() - began
    events = list(watched.events() or [])
    calls = collections.Counter(e.name for e in events if e.device_type == DeviceType.CPU)
    numbers = full("cudaMemcpy", "aten::item")
    waits = {name: n for name, n in calls.items() if "Synchronize" in name or name == numbers}
    on_gpu = [e for e in events if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    kernels = [e for e in on_gpu if not e.name.startswith(("Memcpy", "Memset"))] if GPU else events
    longest: collections.Counter[str] = collections.Counter()
    for event in kernels:
        longest[event.name[:60]] += event.time_range.elapsed_us()
    return {
        "kernels_per_image": round(len(kernels) / images, 1),
        "launches_per_image": round(sum(n for name, n in calls.items() if "Launch" in name) / images, 1),
        "waits_per_image": round(sum(waits.values()) / images, 2),
        "gpu_busy": round(sum(e.time_range.elapsed_us() for e in on_gpu) / 1e6 / wall, 3),
        "waits": waits,
        "copies": dict(collections.Counter(e.name for e in on_gpu if e.name.startswith("Memcpy"))),
        "longest_ms": {name: round(us / 1000, 2) for name, us in longest.most_common(6)},
    }


def program(*command: object, env: dict[str, str] | None = None, codes: Sequence[int] = (0,)) -> str:
    """Runs a Python program and returns its output; if it fails, raises an error with the last of it."""
    call, environment = [sys.executable, *map(str, command)], {**os.environ, **(env or {})}
    done = subprocess.run(call, capture_output=True, text=True, env=environment, cwd=WORK, timeout=600)
    print(*call, done.stdout[-2000:], done.stderr[-3000:], sep="\n", flush=True)
    if done.returncode not in codes:
        said = [line for line in done.stderr.splitlines() if "Error" in line or line.startswith("igm:")]
        raise RuntimeError(f"exit code {done.returncode}: {' / '.join(said[-3:]) or done.stderr[-300:]}")
    return done.stdout


def together(note: Notes, parts: dict[str, Callable[[], Any]]) -> None:
    """Runs parts of a step concurrently and notes their results."""
    with ThreadPoolExecutor(len(parts)) as pool:
        for name, job in [(name, pool.submit(part)) for name, part in parts.items()]:
            note.attempt(name, job.result)


def records(text: str) -> list[dict[str, Any]]:
    """Returns the JSON lines of an output."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def rendered(count: int) -> Any:
    """Returns CLEVR-style scenes of 3 to 8 objects as bytes ``[B,3,H,W]``."""
    from igm_clevr_render.options import SceneOptions
    from igm_clevr_render.renderer import render
    from igm_clevr_render.sampling import sample_scenes

    options = SceneOptions(objects=(3, 8))
    return render(sample_scenes(options, range(count), SEED), options)


def written(count: int) -> list[Path]:
    """Writes such scenes as files; returns these."""
    from PIL import Image

    folder = WORK / f"scenes-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{number:03d}.png" for number in range(count)]
    for file, pixels in zip(files, rendered(count).permute(0, 2, 3, 1).numpy(), strict=True):
        Image.fromarray(pixels).save(file)
    return files


def train_run(
    name: str, steps: int, batch: int, by: Sequence[str] = (), tiny: bool = True
) -> list[dict[str, float]]:
    """Runs ``igm train clevr``, continuing a run of the same name; returns the logged losses."""
    small = ("model.channels=[32,32,32]", "model.blocks=1", "model.window=3") if tiny or not GPU else ()
    often = "picture_every=0", f"log_every={max(1, steps // 6)}", "checkpoint_every=100000", "half=false"
    folder = WORK / "runs" / name
    program(
        *by, "-m", "igm_cli", "train", "clevr", "--limit", full(240, 8), "--steps", steps, "--batch-size", batch,
        "--device", DEVICE, "--precision", full("bf16", "no"), "-o", folder,
        "--set", "decay=0.0", *[word for pair in (*often, *small) for word in ("--set", pair)],
    )  # fmt: skip
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if "loss" in line]


def apart(one: str, other: str) -> dict[str, Any]:
    """Returns whether two runs have the same weights, and their largest difference."""
    from safetensors.torch import load_file

    a, b = (load_file(WORK / "runs" / name / "model.safetensors") for name in (one, other))
    most = max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
    return {"same_bits": most == 0, "most": most}


# ---- the steps -------------------------------------------------------------------------------------------------------


@step(90, timed=False)
def versions(note: Notes) -> None:
    """Notes the output of igm doctor."""
    (report,) = records(program("-m", "igm_cli", "doctor", "--json"))
    for name in ("python", "packages", "driver", "cuda", "gpus", "bf16", "threads", "ok"):
        note[name] = report[name]
    note["cpus"] = os.cpu_count()
    note["broken"] = [each for each in (*report["plugins"], *report["checkpoints"]) if each["problem"]]


@step(110, timed=False)
def same_as_cpu(note: Notes) -> None:
    """Compares positions found on the device with those of several processes on the CPU, in float32 and by default."""
    files, many = written(full(64, 3)), full(max(1, (os.cpu_count() or 2) // 2 - 1), 2)
    few = full((), ("--draws", 2, "--k-max", 2))

    def inverted(device: str, exact: bool, part: Sequence[Path]) -> list[dict[str, Any]]:
        way = (__file__, "float32") if exact else ("-m", "igm_cli")
        env = {"OMP_NUM_THREADS": "1"} | ({"NVIDIA_TF32_OVERRIDE": "0"} if exact else {})
        return records(program(*way, "invert", *part, "--json", "--device", device, *few, env=env))

    def both(exact: bool) -> dict[str, Any]:
        with ThreadPoolExecutor(many) as pool:
            parts = pool.map(lambda part: inverted("cpu", exact, part), [files[i::many] for i in range(many)])
            cpu = {record["image"]: record for part in parts for record in part}
        return compared([cpu[str(file)] for file in files], inverted(DEVICE, exact, files))

    together(note, {"float32": lambda: both(True), "by default": lambda: both(False)})


def compared(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns how far apart the answers for the same images are."""

    def distance(a: dict[str, Any], b: dict[str, Any]) -> float:
        pairs = [[math.dist((p["x"], p["y"]), (q["x"], q["y"])) for q in b["items"]] for p in a["items"]]
        return max((min(row) for row in pairs), default=0.0)

    same_k = [a["k"] == b["k"] for a, b in zip(one, other, strict=True)]
    far = sorted(distance(a, b) for a, b in zip(one, other, strict=True) if a["k"] == b["k"])
    errors = [abs(b["denoising_error"] / a["denoising_error"] - 1) for a, b in zip(one, other, strict=True)]
    return {
        "same_k": f"{sum(same_k)} of {len(one)}",
        "positions_within_1e-3": sum(d < 1e-3 for d in far),
        "median_distance": far[len(far) // 2] if far else None,
        "largest_distance": max(far, default=None),
        "largest_relative_difference_of_error": max(errors),
    }


@step(80)
def speed_invert(note: Notes) -> None:
    """Measures images inverted per second by batch size, K estimated, and a batch's kernels and host waits."""
    import igm_cli
    from igm_cli.core.inference.engine import invert_batch
    from igm_cli.core.types import InversionSettings

    sizes = full((64, 1, 8, 128, 256), (1, 2))
    model = igm_cli.load("clevr-pos", device=DEVICE)
    tiny = {} if GPU else {**FEW, "k_max": 2, "grid": (6, 4), "keep": 8, "refine_steps": 1}
    settings = InversionSettings.from_dict(dict(model.inference), **tiny)
    pixels = rendered(max(sizes))
    images = (pixels / 127.5 - 1).to(DEVICE)

    def inverted(size: int) -> None:
        invert_batch(model.denoiser, images[:size], settings, composition=model.composition)

    for size in sizes:
        repeats = full(3 if size < 256 else 1, 1)
        note.attempt(f"batch {size}, first", lambda: timed(size, lambda: inverted(size)))
        note.attempt(f"batch {size}", lambda: timed(size, lambda: inverted(size), repeats))
        if size in (1, 64):
            note.attempt(f"batch {size}, profile", lambda: profiled(lambda: inverted(size), size))
    pictures = [each.permute(1, 2, 0).numpy() for each in pixels[: full(128, 2)]]
    note.attempt("Model.invert", lambda: timed(len(pictures), lambda: model.invert(pictures, **FEW)))


@step(150)
def train(note: Notes) -> None:
    """Trains clevr-pos: images per second, memory, that the loss falls, and that a run continues."""
    speed = ROOT / "benchmarks" / "train_speed.py", "--device", DEVICE, "--json", "--data", "rendered"
    sizes = full(("--images", 2000, "--steps", 60), ("--images", 8, "--steps", 2, "--warm-up", 1, "--tiny"))

    def speeds(compiled: str, *batches: int) -> dict[str, Any]:
        asked = *speed, *sizes, "--batch-size", *batches, "--compile", compiled
        return {row["batch_size"]: row for row in records(program(*asked))}

    note.attempt("train_speed", lambda: speeds("no", *full((48, 384), (4,))))
    batch, steps = full(48, 4), full(120, 3)

    def run(steps: int) -> dict[str, Any]:
        lines = train_run("train", steps, batch, tiny=False)
        first, last = lines[-min(4, len(lines))], lines[-1]
        spent, images = last["seconds"] - first["seconds"], batch * (last["step"] - first["step"])
        return {
            "per_second": round(images / max(spent, 1e-9), 1),
            "loss": [round(line["loss"], 4) for line in lines],
        }

    note.attempt("igm train", lambda: run(steps))
    note.attempt("igm train, resumed", lambda: run(steps + full(60, 2)))
    if GPU:
        note.attempt("train_speed, compiled", lambda: speeds("reduce-overhead", 48))


@step(75)
def stable_diffusion(note: Notes) -> None:
    """Measures zero-shot perception with Stable Diffusion 2.1's architecture, relative to the U-Net's own speed."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import stable_diffusion as benchmark
    import torch

    from igm_cli.core.concepts import Text
    from igm_cli.core.inference.engine import invert
    from igm_cli.core.models.pipelines import resolve_dtype
    from igm_cli.core.models.text_to_image import TextToImageDenoiser
    from igm_cli.core.types import InversionSettings

    device = torch.device(DEVICE)
    whole = benchmark.random_parts(device, 64, resolve_dtype("auto", device), full(1, 10))

    def measured(side: int, labels: int, draws: int) -> dict[str, Any]:
        parts = dataclasses.replace(whole, image_size=(side, side))
        denoiser = TextToImageDenoiser(parts, Text(benchmark.LABELS[:labels]))
        image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
        latent = denoiser.encode(image)

        def understood(draws: int) -> int:
            how = InversionSettings(draws=draws, max_draws=draws, low=0.05, high=0.95, give_up=False)
            return invert(denoiser, latent, how, k=min(3, labels - 1), composition="mean").network_calls

        x = torch.randn(denoiser.batch, *parts.latent_shape, device=device).to(parts.dtype)
        embedded = denoiser.embed(["a photo of a dog"])
        prompt = {name: each.to(parts.dtype).expand(len(x), *each.shape[1:]) for name, each in embedded.items()}
        t = torch.full((len(x),), 500, device=device)

        @torch.no_grad()
        def alone(calls: int) -> None:
            for _ in range(math.ceil(calls / len(x))):
                parts.family.output(parts.pipe, x, t, prompt, parts.image_size)

        calls = understood(1) * draws
        alone(len(x))
        ours, bare = timed(1, lambda: understood(draws)), timed(1, lambda: alone(calls))
        encoded = timed(1, lambda: denoiser.encode(image))
        return {
            "dtype": str(parts.dtype),
            "calls": calls,
            "calls_at_once": len(x),
            "seconds_per_image": ours["seconds"],
            "unet_alone": bare["seconds"],
            "share_of_unet_speed": round(bare["seconds"] / ours["seconds"], 3),
            "encode": encoded["seconds"],
            "peak_gb": ours.get("peak_gb"),
        }

    for side, labels, draws in full(((512, 20, 50), (768, 20, 10)), ((64, 3, 1),)):
        note.attempt(f"{side} x {side}, {labels} labels, {draws} draws", lambda: measured(side, labels, draws))


@step(110, timed=False)
def gpu_tests(note: Notes) -> None:
    """Runs the tests marked gpu."""
    files = [
        file for file in (ROOT / "tests").rglob("test_*.py") if "mark.gpu" in file.read_text(encoding="utf-8")
    ]
    where = *files, "--rootdir", ROOT, "-c", ROOT / "pyproject.toml"
    options = "-m", "gpu", "-rfEs", "--tb=line", "-p", "no:cacheprovider", "-n", full(4, 0)
    said = program("-m", "pytest", *options, *where, env={"COLUMNS": "300"}, codes=(0, 1)).splitlines()
    for name, starts in (("failed", ("FAILED", "ERROR")), ("skipped", ("SKIPPED",))):
        note[name] = [line.rpartition("/")[2][:300] for line in said if line.startswith(starts)]
    note["pytest"] = said[-1]


@step(120, timed=False)
def launch(note: Notes) -> None:
    """Runs accelerate launch with one process, continues a run, and tests torch.distributed: NCCL, or gloo on a CPU."""
    few, one = full(10, 3), ["-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"]
    one += ["--mixed_precision", "no", "--dynamo_backend", "no", *full([], ["--cpu"])]
    distributed = "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1"

    def twice(name: str, by: Sequence[str]) -> list[float]:
        return [train_run(name, steps, 4, by=by)[-1]["step"] for steps in (few, 2 * few)]

    def inverted() -> list[int]:
        asked = written(1)[0], "--model", WORK / "runs" / "distributed", "--json", "--draws", 2, "--k-max", 2
        return [record["k"] for record in records(program(*distributed, "-m", "igm_cli", "invert", *asked))]

    together(
        note,
        {
            "accelerate launch, resumed": lambda: twice("resumed", one),
            "in one go": lambda: train_run("whole", 2 * few, 4)[-1]["step"],
            "torch.distributed, resumed": lambda: twice("distributed", distributed),
        },
    )
    note.attempt("resumed and in one go", lambda: apart("resumed", "whole"))
    note.attempt("torch.distributed, igm invert: K", inverted)


@step(120, timed=False)
def repeat(note: Notes) -> None:
    """Notes whether the same seed on the same device gives the same bits."""
    files = written(full(8, 1))

    def inverted(*more: object) -> list[Any]:
        few = full((), ("--draws", 2, "--k-max", 2))
        text = program("-m", "igm_cli", "invert", files[0].parent, "--json", "--device", DEVICE, *few, *more)
        return [(record["items"], record["denoising_error"], record["k_curve"]) for record in records(text)]

    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(train_run, name, full(20, 2), 8) for name in ("one", "two")]
        once, again, one_by_one = (pool.submit(inverted, *more) for more in ((), (), ("--batch-size", 1)))
    note.attempt("inversion, twice", lambda: again.result() == once.result())
    note.attempt("inversion, one by one", lambda: one_by_one.result() == once.result())
    note.attempt("training, twice", lambda: [run.result() for run in runs] and apart("one", "two"))


@step(30)
def renderer(note: Notes) -> None:
    """Measures scenes sampled and rendered per second on both; the tests check that they look alike."""
    speed, count = ROOT / "benchmarks" / "renderer.py", full(1024, 8)
    for device, batch in full((("cpu", 64), (DEVICE, 64), (DEVICE, 512)), (("cpu", 4),)):
        asked = speed, "--device", device, "--batch", batch, "--images", count, "--repeats", 2
        note.attempt(f"{device}, {batch} at a time", lambda: program(*asked).splitlines()[-2:])


def on_both(note: Notes, name: str, folder: str, count: int | None) -> None:
    """Notes how fast a bundled model reads examples on the device and on the CPU, and whether the answers agree."""
    import igm_cli

    files, said = sorted((ROOT / "examples" / folder).glob("*.png"))[:count], {}

    def read(device: str) -> dict[str, float]:
        model = igm_cli.load(name, device=device)
        model.invert(files[0], **FEW)
        return timed(len(files), lambda: said.update({device: model.invert(files, **FEW)}))

    def words(result: Any) -> list[Any]:
        return sorted([value for value in item.values() if isinstance(value, str)] for item in result.items)

    for device in dict.fromkeys((DEVICE, "cpu")):
        note.attempt(device, lambda: read(device))
    same = sum(words(a) == words(b) for a, b in zip(said[DEVICE], said["cpu"], strict=True))
    note["same"] = f"{same} of {len(files)}"


@step(40)
def zero_shot(note: Notes) -> None:
    """Measures pictures labelled per second by the bundled animals-tiny."""
    on_both(note, "animals-tiny", "animals", full(6, 1))


@step(30)
def attributes(note: Notes) -> None:
    """Measures faces read per second by the bundled celeba-attributes."""
    on_both(note, "celeba-attributes", "faces", full(None, 1))


@step(40)
def decomposition(note: Notes) -> None:
    """Measures bound vectors decomposed per second on both, and the share of right codewords."""
    import igm_cli
    from igm_cli.core.decomposition.problems import random_problems

    bound, sums = (40, 3, 1000, 128), (20, 3, 2000, 8)
    cases: dict[str, tuple[Sequence[int], dict[str, Any], dict[str, Any]]] = {
        "auto n100": ((100, 3, 1000, 128), {}, {}),
        "coupled n40": (bound, {}, {"method": "coupled"}),
        "coupled hrr n40": (bound, {"binding": "hrr"}, {"method": "coupled"}),
        "resonator n40": (bound, {}, {"method": "resonator"}),
        "exhaustive n40": (bound, {}, {"method": "exhaustive"}),
        "sums of three n20": (sums, {"superposed": 3}, {"k": 3}),
    }

    def taken_apart(device: str, size: Sequence[int], about: Any, how: Any) -> dict[str, Any]:
        problems = random_problems(*full(size, (8, 3, 400, 2)), seed=SEED, **about)
        found: list[Any] = []

        def run() -> None:
            found[:] = igm_cli.decompose(problems.vectors, problems.codebooks, device=device, **how)

        run()
        speed, truth = timed(len(problems.vectors), run), problems.truth.flatten(1).tolist()
        words = [sorted(item["index"] for item in one.items) for one in found]
        right = sum(a == sorted(b) for a, b in zip(words, truth, strict=True))
        return {**speed, "right": round(right / len(truth), 4)}

    for name, case in cases.items():
        for device in dict.fromkeys((DEVICE, "cpu")):
            note.attempt(f"{name}, {device}", lambda: taken_apart(device, *case))


# ---- the runner ------------------------------------------------------------------------------------------------------


def run_group(names: list[str], results: dict[str, Any], log: Any) -> None:
    """Runs steps concurrently, each up to its time limit, and saves their findings as they come."""
    left = SECONDS_IN_ALL - (time.time() - STARTED)
    if left < 10:
        results["steps"] |= {name: {"status": "no time left"} for name in names}
        return
    began, running = time.perf_counter(), {}
    for name in names:
        said = (WORK / f"{name}.log").open("w")
        call = [sys.executable, __file__, "step", name, str(WORK / f"{name}.json")]
        process = subprocess.Popen(
            call, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True
        )
        running[name] = process, min(left, STEPS[name][1] if GPU else 1500)
    while running:
        time.sleep(0.2)
        for name, (process, allowed) in list(running.items()):
            seconds, status = time.perf_counter() - began, "running"
            if (code := process.poll()) is not None:
                status = "done" if code == 0 else f"failed ({code})"
            elif seconds > allowed:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                status = "too long"
            notes = WORK / f"{name}.json"
            found = json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else {}
            results["steps"][name] = {"status": status, "seconds": round(seconds, 1), **found}
            if status != "running":
                del running[name]
                print(f"==== {name}", (WORK / f"{name}.log").read_text(errors="replace"), sep="\n", file=log)
                print(f"{name}: {status}, {seconds:.1f} s", flush=True)
        write_json(OUT / "results.json", results)


def brief(found: Any) -> Any:
    """Returns a step's findings without details that only the file needs."""
    long = ("packages", "waits", "copies", "longest_ms")
    return {k: brief(v) for k, v in found.items() if k not in long} if isinstance(found, dict) else found


def run() -> int:
    """Runs all steps, or the requested ones; prints their findings, the most important last."""
    asked = [name for name in os.environ.get("STEPS", "").split(",") if name] or list(STEPS)
    if unknown := [name for name in asked if name not in STEPS]:
        print(f"no step is called {unknown[0]!r}; there are {', '.join(STEPS)}", file=sys.stderr)
        return 2
    try:
        resolve_device(DEVICE)
    except IgmError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    results: dict[str, Any] = {"device": DEVICE, "steps": {}}
    with (OUT / "log.txt").open("w") as log:
        names = [name for name in STEPS if name in asked]
        for _, group in itertools.groupby(names, lambda name: name if STEPS[name][2] else "together"):
            run_group(list(group), results, log)
    results["seconds"] = round(time.time() - STARTED, 1)
    write_json(OUT / "results.json", results)
    told = [f"{name}: {json.dumps(brief(found))[:1500]}" for name, found in reversed(results["steps"].items())]
    print("\n", "\n\n".join(told)[-9000:])
    print(f"\n{results['seconds']} s in all; everything is in {OUT / 'results.json'}")
    return 0 if all(found["status"] == "done" for found in results["steps"].values()) else 1


def main(arguments: list[str]) -> int:
    """Takes no arguments for the whole check, ``step NAME FILE``, or ``float32`` and an igm command to run without bfloat16."""
    if not arguments:
        return run()
    if arguments[0] == "float32":
        import torch

        from igm_cli import app

        torch.cuda.is_bf16_supported = torch.cpu._is_avx512_bf16_supported = lambda *how, **more: False
        return app.main(arguments[1:])
    if arguments[0] != "step" or len(arguments) != 3 or arguments[1] not in STEPS:
        print("gpu_check.py takes no arguments; STEPS names some of the steps", file=sys.stderr)
        return 2
    note = Notes(Path(arguments[2]))
    try:
        STEPS[arguments[1]][0](note)
    except Exception as error:
        traceback.print_exc()
        note["failed"] = f"{type(error).__name__}: {error}"[:500]
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
