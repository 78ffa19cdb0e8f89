#!/usr/bin/env bash
# Runs what of igm needs a GPU, in about eight minutes, and keeps what it finds in $OUT/results.json, step by step.
#
#     bash benchmarks/gpu_check.sh                in the root of the repository, on a machine with a GPU
#     STEPS=versions,same_as_cpu,speed_invert,train SECONDS_IN_ALL=120 bash benchmarks/gpu_check.sh
#     DEVICE=cpu bash benchmarks/gpu_check.sh     the same on a CPU in tiny sizes: shows that the check works
#
# Nothing is fetched.  Where igm is not installed it runs from where it lies.
#
#     OUT       where results go                                   (gpu_check_out)
#     PYTHON    interpreter                                        (that of .venv, else python3)
#     PACKAGES  a tar archive of Python packages the machine lacks (none)
#     SECONDS_IN_ALL  after which no further step begins           (470)
#     STEPS     some of the steps, with commas between them        (all)
set -eu
[ -f igm_cli/__init__.py ] || { echo "start it in the root of the repository"; exit 2; }
[ -x .venv/bin/python ] && PYTHON=${PYTHON:-.venv/bin/python}
export DEVICE=${DEVICE:-cuda} OUT=${OUT:-$PWD/gpu_check_out} PYTHON=${PYTHON:-python3} ROOT=$PWD
STARTED=$(date +%s) WORK=$(mktemp -d)
export STARTED WORK
trap 'rm -rf "$WORK"' EXIT
mkdir -p "$OUT" "$WORK/site"

[ -n "${PACKAGES:-}" ] && "$PYTHON" -W ignore -m tarfile -e "$PACKAGES" "$WORK/site"
export PYTHONPATH="$WORK/site:$ROOT:$ROOT/packages/igm-clevr-render${PYTHONPATH:+:$PYTHONPATH}"
# The metadata by which plugins are found, of both distributions.
"$PYTHON" - "$WORK/site" <<'PY'
import importlib.metadata, pathlib, sys

from igm_cli.core.files import parse_toml

for file in ("pyproject.toml", "packages/igm-clevr-render/pyproject.toml"):
    project = parse_toml(pathlib.Path(file).read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    if any(found.name == name for found in importlib.metadata.distributions()):
        continue
    folder = pathlib.Path(sys.argv[1]) / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    with (folder / "entry_points.txt").open("w") as out:
        for group, points in project["entry-points"].items():
            print(f"[{group}]", *(f"{key} = {value}" for key, value in points.items()), sep="\n", file=out)
PY

export HF_HOME=$WORK/cache HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false NO_COLOR=1 PYTHONUNBUFFERED=1
export GOMP_SPINCOUNT=0 OMP_WAIT_POLICY=passive
[ "$DEVICE" = cpu ] || nvidia-smi || true
"$PYTHON" benchmarks/gpu_check.py
