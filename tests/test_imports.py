"""Imports: none in a circle, and no more than a command needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "examples/images/CLEVR_val_000003.png"
MOST_MODULES = 48
"""Modules of igm_cli that the inversion of positions imports at most."""


def modules() -> dict[str, Path]:
    """All modules of this repository's packages by name."""
    found = {}
    for top in (ROOT, *(ROOT / "packages").iterdir()):
        for path in top.glob("igm_*/**/*.py"):
            found[".".join(path.relative_to(top).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def import_graph(known: dict[str, Path]) -> dict[str, set[str]]:
    """What each module imports of the others: at its top, inside functions, and for type checkers."""
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert not node.level, f"{path}: a relative import"
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
        targets = {nearest(name, known) for name in names}
        # A package is imported with each of its modules, which is no circle.
        graph[module] = {t for t in targets if t and t != module and not module.startswith(f"{t}.")}
    return graph


def nearest(name: str, known: dict[str, Path]) -> str:
    """The module that a dotted name lies in; empty if it is none of ours."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """All modules that a module imports, directly or through others."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        new = graph[todo.pop()] - seen
        seen |= new
        todo += new
    return seen


def test_no_module_imports_itself_through_others() -> None:
    graph = import_graph(modules())
    assert len(graph) > 100 and "igm_cli.core.concepts" in graph["igm_cli.core.inference.engine"]
    assert [module for module in graph if module in reachable(graph, module)] == []


def test_an_inversion_imports_what_it_needs() -> None:
    """Nor do text-to-image models need the libraries of pipelines before one is loaded."""
    code = (
        "import sys; from igm_cli.app import main; assert main(sys.argv[1:]) == 0; print(*sys.modules, file=sys.stderr); "
        "import igm_cli.core.models.text_to_image; print(*sys.modules, file=sys.stderr)"
    )
    command = ["invert", str(IMAGE), "--json", "--k", "1", "--draws", "2"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    inverted, more = (set(line.split()) for line in done.stderr.splitlines()[-2:])
    ours = sorted(name for name in inverted if name.partition(".")[0] == "igm_cli")
    assert len(ours) <= MOST_MODULES, ours
    heavy = {
        "accelerate",
        "datasets",
        "diffusers",
        "huggingface_hub",
        "matplotlib",
        "rich",
        "scipy.stats",
        "tensorboard",
        "transformers",
    }
    assert not inverted & heavy
    assert not more & {"diffusers", "huggingface_hub", "transformers"}
