"""``igm invert`` and ``igm estimate-k`` of bound vectors, as a user meets them.

What needs no process of its own runs in this one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from codebook_files import write_codebooks, write_problems
from conftest import Done, Here, Igm
from safetensors.torch import load_file, save_file
from test_cli import lines, one_sentence, schema, untimed

from igm_cli.core.decomposition.problems import random_problems

CPU = ("--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Codebooks with vectors of one product, of sums of three, of none, and with noise."""
    folder = tmp_path_factory.mktemp("codebook")
    problems = random_problems(12, 3, 512, 6, seed=2)
    write_problems(folder / "books.safetensors", problems)
    np.save(folder / "truth.npy", problems.truth.numpy())
    np.save(folder / "one.npy", problems.vectors[0].numpy())
    np.savez(folder / "six.npz", vectors=problems.vectors.numpy(), truth=problems.truth.numpy())
    np.save(folder / "sum.npy", problems.vectors[:3].sum(0).numpy())
    generator = torch.Generator().manual_seed(9)
    nothing = random_problems(12, 3, 512, 1, seed=77).vectors
    np.save(folder / "nothing.npy", nothing.numpy())
    noisy = problems.vectors + torch.randn(6, 512, generator=generator)
    np.save(folder / "noisy.npy", torch.cat([noisy, nothing]).numpy())
    for name, value in (("nan", np.nan), ("inf", np.inf), ("zero", 0.0), ("huge", 1e300)):
        row = problems.vectors.double().numpy().copy()
        row[2] = value
        np.save(folder / f"{name}.npy", row)
    np.save(folder / "short.npy", np.ones(100))
    np.save(folder / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    (folder / "photo.png").write_bytes(b"\x89PNG")
    same = [book.clone() for book in problems.codebooks.spectra]
    same[1][5] = same[1][3]
    write_codebooks(folder / "same.safetensors", same, "map")
    write_codebooks(folder / "two.safetensors", problems.codebooks.spectra[:2], "map")
    write_codebooks(folder / "equal.safetensors", [same[0], same[0].clone(), same[2]], "map")
    (folder / "single").mkdir()
    write_codebooks(folder / "single" / "books.safetensors", [same[0][:1], same[1]], "map")
    return folder


def books(folder: Path, name: str = "books") -> tuple[Any, ...]:
    return ("--codebooks", folder / f"{name}.safetensors", *CPU)


def only(said: Done) -> dict[str, Any]:
    assert said.code == 0, said.err
    (line,) = lines(said.out)
    return line


def indices(line: dict[str, Any]) -> list[int]:
    return [item["index"] for item in line["items"]]


def test_a_process_of_its_own(igm: Igm, folder: Path) -> None:
    done = igm(
        "decompose", "six.npz", "--concepts", "codebook", *books(folder), "--json", cwd=folder, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = lines(done.stdout)
    for line in found:
        jsonschema.validate(line, schema("igm.decompose-1"), jsonschema.Draft202012Validator)
    assert [indices(line) for line in found] == np.load(folder / "truth.npy").tolist()
    assert [line["vector"] for line in found] == list(range(6))
    for line in found:
        assert (line["input"], line["method"], line["binding"], line["k"]) == ("six.npz", "auto", "map", 1)
        assert line["similarity"] == pytest.approx(1.0, abs=1e-5)
        assert [item["factor"] for item in line["items"]] == [0, 1, 2]
        assert all(item["confidence"] > 0.999 and "ambiguous" not in item for item in line["items"])
        assert line["operations"] > 0


@pytest.mark.parametrize("method", ["coupled", "attention", "resonator", "factorizer", "exhaustive"])
def test_methods(here: Here, folder: Path, method: str) -> None:
    line = only(here("decompose", folder / "one.npy", *books(folder), "--method", method, "--json"))
    jsonschema.validate(line, schema("igm.decompose-1"), jsonschema.Draft202012Validator)
    assert indices(line) == np.load(folder / "truth.npy")[0].tolist()
    assert line["method"] == method
    assert (line["iterations"] > 0) == (method != "exhaustive")


def test_iterations_bound_an_iterative_method(here: Here, folder: Path) -> None:
    given = ("decompose", folder / "nothing.npy", *books(folder), "--method", "resonator", "--json")
    assert only(here(*given, "--iterations", 7))["iterations"] == 7
    assert only(here(*given))["iterations"] == 100


def test_tables_for_people(here: Here, folder: Path) -> None:
    truth = np.load(folder / "truth.npy")
    one = here("decompose", folder / "one.npy", *books(folder))
    assert one.code == 0
    assert one.err == ""
    assert "one.npy: similarity 1.000 by auto" in one.out
    assert all(heading in one.out for heading in ("factor", "index", "similarity", "confidence"))
    six = here("decompose", folder / "six.npz", *books(folder))
    assert "six.npz: 6 vectors" in six.out
    assert ", ".join(map(str, truth[4])) in six.out


def test_what_was_not_bound_from_these_is_said(here: Here, folder: Path) -> None:
    said = here("decompose", folder / "nothing.npy", *books(folder))
    assert said.code == 0
    assert "no product of these codewords as far as can be told" in one_sentence(said.err)
    line = only(here("decompose", folder / "nothing.npy", *books(folder), "--json"))
    assert max(item["confidence"] for item in line["items"]) < 0.9
    assert line["similarity"] < 0.3
    fewer = here("decompose", folder / "one.npy", *books(folder, "two"))  # bound from more codebooks than given
    assert "what chance gives" in one_sentence(fewer.err)


def test_noise_lowers_the_similarity_and_not_the_answer(here: Here, folder: Path) -> None:
    said = here("decompose", folder / "noisy.npy", *books(folder), "--json")
    found = lines(said.out)
    assert [indices(line) for line in found[:6]] == np.load(folder / "truth.npy").tolist()
    assert all(0.6 < line["similarity"] < 0.8 for line in found[:6])
    rest, chance = sorted(said.err.splitlines())[::-1]
    assert "1 of 7 vectors" in chance and "6 of 7 vectors" in rest and "noise or further products" in rest
    counted = here("decompose", "--count", folder / "noisy.npy", *books(folder))
    assert (
        "6 of 7 vectors" in counted.err and "products that are no more similar to it than chance" in counted.err
    )


def test_what_one_product_leaves_of_a_sum_is_said(here: Here, folder: Path) -> None:
    said = here("decompose", folder / "sum.npy", *books(folder))
    assert re.search(
        r"explains 40 % of the vector; the rest is noise or further products", one_sentence(said.err)
    )
    assert "--count tells" in said.err
    assert not here("decompose", folder / "sum.npy", *books(folder), "--k", 3).err


def test_a_binding_that_is_guessed_is_said(here: Here, folder: Path) -> None:
    save_file(load_file(folder / "books.safetensors"), folder / "silent.safetensors")
    said = one_sentence(here("decompose", folder / "one.npy", *books(folder, "silent")).err)
    assert "does not name a binding; map is assumed, since" in said and "--binding names another" in said
    gone = here("decompose", folder / "none.npy", *books(folder, "silent"))
    assert one_sentence(gone.err) == f"igm: {folder / 'none.npy'} does not exist; check the path"


def test_codewords_that_are_the_same(here: Here, folder: Path) -> None:
    truth = np.load(folder / "truth.npy")
    same = random_problems(12, 3, 512, 6, seed=2).codebooks
    product = same.product(torch.tensor([int(truth[0, 0]), 3, int(truth[0, 2])]))
    np.save(folder / "tied.npy", product.numpy())
    said = here("decompose", folder / "tied.npy", *books(folder, "same"))
    notes = said.err.splitlines()
    assert "codebook 1 has codewords that occur more than once (3, 5)" in notes[0]
    assert "another codeword would do as well for factor 1" in notes[1]
    line = only(here("decompose", folder / "tied.npy", *books(folder, "same"), "--json"))
    jsonschema.validate(line, schema("igm.decompose-1"), jsonschema.Draft202012Validator)
    assert [item.get("ambiguous") for item in line["items"]] == [None, True, None]
    assert line["items"][1]["index"] in (3, 5)
    assert line["items"][1]["confidence"] <= 0.51


def test_codewords_that_two_codebooks_share(here: Here, folder: Path) -> None:
    same = load_file(folder / "equal.safetensors")
    np.save(folder / "swapped.npy", (same["factor_0"][3] * same["factor_1"][7] * same["factor_2"][1]).numpy())
    done = here("decompose", folder / "swapped.npy", *books(folder, "equal"), "--json")
    notes = done.err.splitlines()
    assert "codebooks 0 and 1 share codewords; if such" in notes[0] and "order cannot be told" in notes[0]
    assert "another codeword would do as well for factor 0, factor 1" in notes[1]
    items = only(done)["items"]
    assert [item.get("ambiguous") for item in items] == [True, True, None]
    assert [item["confidence"] for item in items] == [0.5, 0.5, 1.0]


def test_sums_of_products(here: Here, folder: Path) -> None:
    truth = np.load(folder / "truth.npy")[:3].tolist()
    line = only(here("decompose", folder / "sum.npy", *books(folder), "--k", 3, "--json"))
    jsonschema.validate(line, schema("igm.decompose-1"), jsonschema.Draft202012Validator)
    assert line["k"] == 3
    products = [[i["index"] for i in line["items"] if i["product"] == p] for p in range(3)]
    assert sorted(products) == sorted(truth)
    assert line["similarity"] == pytest.approx(1.0, abs=1e-3)
    fewer = here("decompose", folder / "one.npy", *books(folder), "--k", 2)
    assert "1 of 2 products found, and nothing is left to explain" in one_sentence(fewer.err)


def test_how_many_products(here: Here, folder: Path) -> None:
    line = only(here("decompose", "--count", folder / "sum.npy", *books(folder), "--json"))
    jsonschema.validate(line, schema("igm.decompose-k-1"), jsonschema.Draft202012Validator)
    assert line["k"] == 3
    shares = [point["unexplained"] for point in line["k_curve"]]
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)
    assert shares[3] < 1e-3 < shares[2]
    table = here("decompose", "--count", folder / "sum.npy", "--concepts", "codebook", *books(folder))
    assert "sum.npy: K = 3" in table.out
    assert "◯" in table.out
    capped = here("decompose", "--count", folder / "sum.npy", *books(folder), "--k-max", 2)
    assert "--k-max 2" in one_sentence(capped.err)
    nothing = here("decompose", "--count", folder / "nothing.npy", *books(folder))
    assert "K = 0" in nothing.out
    assert "no product of these codewords" in one_sentence(nothing.err)


def test_a_run_goes_on_where_it_stopped(here: Here, folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    given = ("decompose", folder / "noisy.npy", *books(folder), "--json", "--output", kept)
    whole = lines(here(*given).out)
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[:3]) + '{"schema": "igm.decom')
    again = here(*given)
    assert untimed(again.out) == untimed(kept.read_text())
    assert [line["items"] for line in lines(again.out)] == [line["items"] for line in whole]
    assert len(lines(kept.read_text())) == 7
    other = here(*given, "--seed", 5)
    assert other.code == 3
    assert "other options" in one_sentence(other.err)


def test_several_files_of_which_some_are_bad(here: Here, folder: Path) -> None:
    said = here(
        "decompose", folder / "nan.npy", folder / "one.npy", folder / "photo.png", *books(folder), "--json"
    )
    assert said.code == 3
    assert [line["input"] for line in lines(said.out)] == [str(folder / "one.npy")]
    notes = said.err.splitlines()
    assert "vector 2 has entries that are not finite" in notes[0]
    assert "give a .npy, .npz or .safetensors file" in notes[1]
    assert notes[2] == "igm: 2 of 3 files could not be used; the others are done"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["decompose", "{f}/one.npy"], 2, "Missing option '--codebooks'"),
        (
            ["invert", "{f}/one.npy"],
            3,
            "an array, not an image; bound vectors are taken apart by igm decompose",
        ),
        (["estimate-k", "x.png", "--concepts", "codebook"], 2, "take them apart by igm decompose"),
        (["decompose", "{f}/one.npy", "{b}", "--concepts", "pos"], 2, "use --concepts codebook"),
        (["decompose", "{f}/one.npy", "{b}", "--k-max", "3"], 2, "--k-max belongs to --count"),
        (["decompose", "--count", "{f}/sum.npy", "{b}", "--k", "3"], 2, "leave out --count"),
        (["decompose", "--count", "{f}/sum.npy", "{b}", "--csv", "x.csv"], 2, "leave out --count"),
        (["decompose", "--count", "{f}/sum.npy", "{b}", "--method", "auto"], 2, "leave out --count"),
        (["decompose", "{f}/one.npy", "{b}", "--method", "sgd"], 2, "'sgd' is not one of"),
        (
            ["decompose", "{f}/one.npy", "{b}", "--iterations", "9"],
            2,
            "--iterations belongs to --method coupled",
        ),
        (
            ["decompose", "{f}/sum.npy", "{b}", "--k", "2", "--method", "coupled"],
            2,
            "leave out --method coupled",
        ),
        (["decompose", "{f}/one.npy", "--codebooks", "no.safetensors"], 3, "no.safetensors does not exist"),
        (["decompose", "{f}/one.npy", "--codebooks", "no"], 3, "no does not exist"),
        (["decompose", "{f}/one.npy", "--codebooks", "{f}/one.npy"], 3, "is not a .safetensors file"),
        (["decompose", "{f}/one.npy", "--codebooks", "{f}/single/books.safetensors"], 3, "nothing to choose"),
        (["decompose", "{f}/one.npy", "{b}", "--binding", "fhrr"], 3, "cannot be real"),
        (["decompose", "{f}/missing.npy", "{b}"], 3, "does not exist"),
        (
            ["decompose", "-", "{b}"],
            2,
            "igm: - names no file of vectors; save what comes from there, and name the file",
        ),
        (["decompose", "{f}/photo.png", "{b}"], 3, "give a .npy, .npz or .safetensors file"),
        (["decompose", "{f}/pickled.npy", "{b}"], 3, "a pickle, which could run any code"),
        (["decompose", "{f}/short.npy", "{b}"], 3, "dimension 100, the codebooks 512"),
        (["decompose", "{f}/nan.npy", "{b}"], 3, "vector 2 has entries that are not finite"),
        (["decompose", "{f}/inf.npy", "{b}"], 3, "vector 2 has entries that are not finite"),
        (["decompose", "{f}/huge.npy", "{b}"], 3, "numbers beyond those of float32"),
        (["decompose", "{f}/zero.npy", "{b}"], 3, "vector 2 is zero"),
        (["decompose", "--count", "{f}/zero.npy", "{b}"], 3, "vector 2 is zero"),
        (["train", "codebook"], 2, "codebooks need no training"),
        (["train", "clevr", "--concepts", "codebook"], 2, "codebooks need no training"),
        (["train", "codebook", "--concepts", "pos"], 2, "has no images"),
    ],
)
def test_mistakes(here: Here, folder: Path, arguments: list[str], code: int, says: str) -> None:
    given: list[object] = []
    for argument in arguments:
        given += books(folder)[:2] if argument == "{b}" else [argument.format(f=folder)]
    said = here(*given, *CPU)
    assert said.code == code, said.err
    assert says in one_sentence(said.err)
    assert said.out == ""


def test_several_processes_are_refused(here: Here, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    said = here("decompose", folder / "one.npy", *books(folder))
    assert said.code == 2
    assert "one process" in one_sentence(said.err)


def test_long_tables_are_cut_and_progress_is_told(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    from igm_cli.output import Output

    told: list[tuple[str, int, int]] = []

    @contextmanager
    def progress(self: Output) -> Any:
        yield lambda what, done, total: told.append((what, done, total))

    monkeypatch.setattr(Output, "progress", progress)
    problems = random_problems(4, 2, 64, 300, seed=0)
    write_problems(tmp_path / "many.safetensors", problems)
    said = here("decompose", tmp_path / "many.safetensors", "--codebooks", tmp_path / "many.safetensors", *CPU)
    assert said.code == 0
    assert "many.safetensors: 300 vectors" in said.out
    assert "... and 200 more" in said.out
    assert [done for _, done, _ in told] == [0, 256, 300]
    assert {total for *_, total in told} == {300}
