"""The plugin ``codebook``: its files, its dataset, its parser, and torchhd's tensors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codebook_files import write_codebooks, write_problems
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from igm_cli.core.concepts import Codebook, ConceptSpace
from igm_cli.core.decomposition.binding import BINDINGS
from igm_cli.core.decomposition.codebooks import Codebooks
from igm_cli.core.decomposition.decompose import decompose
from igm_cli.core.decomposition.problems import random_problems
from igm_cli.errors import InputError, UsageError
from igm_cli.plugins import registry
from igm_cli.plugins.base import Frame
from igm_cli.plugins.codebook.adapter import CodebookProblems
from igm_cli.plugins.codebook.files import (
    read_codebooks,
    read_problems,
    read_vectors,
)
from igm_cli.plugins.codebook.parser import CodebookProducts

NO_FRAME = Frame((1, 1), (0.0, 0.0, 1.0, 1.0))
SMALL = {"codewords": 6, "dim": 128, "size": 5}


class Trap:
    """What a pickle could do: anything."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("sprung"),))


@given(st.lists(st.integers(2, 9), min_size=2, max_size=5), st.integers(1, 4), st.data())
@settings(max_examples=30, deadline=None)
def test_items_and_indices_are_inverses(sizes: list[int], products: int, data: st.DataObject) -> None:
    parser = CodebookProducts(sizes, 64)
    rows = [[data.draw(st.integers(0, size - 1)) for size in sizes] for _ in range(products)]
    indices = torch.tensor(rows)
    items = parser.decode(indices, NO_FRAME)
    assert len(items) == products * len(sizes)
    assert all(item["index"] < sizes[item["factor"]] for item in items)
    shuffled = data.draw(st.permutations(items))
    assert torch.equal(parser.encode(shuffled, NO_FRAME), indices)
    assert torch.equal(parser.parse({"truth": rows if products > 1 else rows[0]}, NO_FRAME), indices)
    assert parser.score(indices.flip(0), indices) == {"factors": 1.0, "exact": 1.0}


def test_score_counts_right_factors_of_the_best_matching() -> None:
    parser = CodebookProducts([5, 5, 5], 64)
    truth = torch.tensor([[0, 1, 2], [3, 4, 0]])
    predicted = torch.tensor([[3, 4, 1], [0, 1, 2]])
    assert parser.score(predicted, truth) == {"factors": pytest.approx(5 / 6), "exact": 0.0}
    assert parser.score(truth[:1], truth) == {"factors": 0.5, "exact": 0.0}
    assert parser.score(torch.cat([truth, truth[:1]]), truth) == {"factors": 1.0, "exact": 0.0}


@pytest.mark.parametrize(
    ("items", "says"),
    [
        (
            [{"factor": 0, "index": 1}, {"factor": 2, "index": 0}],
            "no factor 2; the codebooks are those of 0 to 1",
        ),
        ([{"factor": 0, "index": 1}], "no codeword of factor 1"),
        ([{"factor": 0, "index": 1}, {"factor": 0, "index": 2}], "two codewords of factor 0"),
        ([{"factor": 0, "index": 9}, {"factor": 1, "index": 0}], "codebook 0 has 4 codewords"),
        ([{"factor": 0, "index": -1}, {"factor": 1, "index": 0}], "codebook 0 has 4 codewords"),
        ([{"factor": 0}], "needs a factor and an index"),
        ([{"product": 1, "factor": f, "index": 0} for f in (0, 1)], "not numbered from 0"),
    ],
)
def test_items_that_name_no_codeword(items: list[dict[str, int]], says: str) -> None:
    with pytest.raises(InputError, match=says):
        CodebookProducts([4, 4], 64).encode(items, NO_FRAME)


def test_the_space_survives_json_and_the_parser_is_configured() -> None:
    plain = registry.concept_parser("codebook")
    parser = registry.configured(plain, {"sizes": "7, 8", "dim": "32"})
    assert parser.space == Codebook((7, 8), 32) == ConceptSpace.from_dict(parser.space.to_dict())
    for options in ({"sizes": "7"}, {"sizes": "a,b"}, {"dim": 0}):
        with pytest.raises(UsageError, match="no codebooks of the sizes"):
            registry.configured(plain, options)
    with pytest.raises(UsageError, match="not an image"):
        parser.draw(None, [])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="truth"):
        parser.parse({"image": None}, NO_FRAME)


@pytest.mark.parametrize("binding", sorted(BINDINGS))
def test_problems_survive_their_file(binding: str, tmp_path: Path) -> None:
    problems = random_problems(6, 3, 64, 4, binding=binding, noise=0.1, superposed=2, seed=3)
    path = tmp_path / "new" / "test.safetensors"
    write_problems(path, problems)
    again = read_problems(path)
    assert again.codebooks.binding.name == binding
    assert torch.equal(again.truth, problems.truth)
    assert torch.equal(again.vectors, problems.vectors)
    for one, other in zip(again.codebooks.spectra, problems.codebooks.spectra, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert torch.equal(read_vectors(path), problems.vectors)  # several tensors, one of them called vectors


def test_a_file_that_says_no_binding_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "books.safetensors"
    for binding in BINDINGS.values():
        book = binding.random(4, 32, torch.Generator().manual_seed(0))
        save_file({"factor_0": book, "factor_1": book.flip(0).contiguous()}, path)
        assert read_codebooks(path).binding.name == binding.name
    save_file({"factor_0": torch.ones(3, 8, dtype=torch.int8), "factor_1": torch.ones(2, 8)}, path)
    assert read_codebooks(path).binding.name == "map"
    assert read_codebooks(path, "hrr").binding.name == "hrr"


def test_vectors_in_every_format_and_number_type(tmp_path: Path) -> None:
    values = np.sign(np.random.default_rng(0).standard_normal((3, 16)))
    for dtype in ("int8", "float16", ">f8", "float32", "complex128"):
        np.save(tmp_path / "v.npy", values.astype(dtype))
        read = read_vectors(tmp_path / "v.npy")
        assert read.dtype == (torch.complex64 if dtype == "complex128" else torch.float32)
        assert np.array_equal(read.numpy().real, values)
    np.savez_compressed(tmp_path / "one.npz", anything=values[0])
    assert read_vectors(tmp_path / "one.npz").shape == (16,)
    np.savez(tmp_path / "two.npz", vectors=values, other=values[0])
    assert read_vectors(tmp_path / "two.npz").shape == (3, 16)
    save_file({"x": torch.from_numpy(values).bfloat16()}, tmp_path / "v.safetensors")
    assert np.array_equal(read_vectors(tmp_path / "v.safetensors").numpy(), values)


def write_bad(name: str, path: Path) -> None:
    """A file that holds no vectors."""
    numbers = np.ones(8)
    if name == "object.npy":
        np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)
    elif name == "pickle.npy":
        path.write_bytes(pickle.dumps(Trap()))
    elif name == "object.npz":
        np.savez(path, vectors=np.array([Trap()], dtype=object))
    elif name == "many.npz":
        np.savez(path, a=numbers, b=numbers)
    elif name == "none.npz":
        np.savez(path)
    elif name == "cut.npy":
        np.save(path, numbers)
        path.write_bytes(path.read_bytes()[:-9])
    elif name == "cut.npz":
        np.savez(path, numbers)
        path.write_bytes(path.read_bytes()[:-30])
    elif name == "empty.npy":
        path.touch()
    elif name == "words.npy":
        np.save(path, np.array(["a", "b"]))
    elif name == "truth.npy":
        np.save(path, numbers > 0)
    elif name == "cube.npy":
        np.save(path, np.ones((2, 2, 2)))
    elif name == "scalar.npz":
        np.savez(path, np.float32(3))
    elif name == "nothing.npy":
        np.save(path, np.ones((0, 8)))
    elif name == "folder.npy":
        path.mkdir()
    elif name != "missing.npy":
        path.write_bytes(b"something else")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("object.npy", "a pickle, which could run any code"),
        ("pickle.npy", "a pickle, which could run any code"),
        ("object.npz", "a pickle, which could run any code"),
        ("many.npz", r"2 arrays \(a, b\); name the bound vectors 'vectors'"),
        ("none.npz", "holds no array"),
        ("cut.npy", "not a .npy file that can be read"),
        ("cut.npz", "not a .npz file that can be read"),
        ("other.npy", "not a .npy file that can be read"),
        ("other.safetensors", "not a .safetensors file that can be read"),
        ("empty.npy", "empty"),
        ("missing.npy", "does not exist"),
        ("folder.npy", "is a folder"),
        ("words.npy", "holds texts, not numbers"),
        ("truth.npy", "truth values, not numbers"),
        ("cube.npy", r"shape \[2, 2, 2\]"),
        ("nothing.npy", "holds an array without a number"),
        ("scalar.npz", "holds a single number"),
        ("photo.png", "give a .npy, .npz or .safetensors file"),
    ],
)
def test_files_that_hold_no_vectors(
    name: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bad(name, tmp_path / name)
    with pytest.raises(InputError, match=says) as caught:
        read_vectors(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("tensors", "metadata", "says"),
    [
        ({"a": torch.ones(2, 4)}, {}, "holds a; codebooks must be named factor_0"),
        ({"factor_0": torch.ones(2, 4), "factor_2": torch.ones(2, 4)}, {}, "factor_2 but no factor_1"),
        ({"factor_0": torch.ones(2, 4)}, {}, "1 codebook is too few"),
        (
            {f"factor_{k}": torch.ones(1, 4) for k in (0, 1)},
            {},
            "has 1 codeword, so there is nothing to choose",
        ),
        ({f"factor_{k}": torch.ones(2, 0) for k in (0, 1)}, {}, "codewords without a single number"),
        ({f"factor_{k}": torch.ones(2, 4 + k) for k in (0, 1)}, {}, "dimension 5, codebook 0 has 4"),
        ({f"factor_{k}": torch.full((2, 4), torch.nan) for k in (0, 1)}, {}, "not finite"),
        ({f"factor_{k}": torch.ones(2, 4) > 0 for k in (0, 1)}, {}, "truth values"),
        ({f"factor_{k}": torch.ones(2, 4) for k in (0, 1)}, {"binding": "xor"}, "the binding 'xor'"),
        ({f"factor_{k}": torch.ones(2, 4) for k in (0, 1)}, {"binding": "fhrr"}, "cannot be real"),
    ],
)
def test_codebooks_that_cannot_be_used(
    tensors: dict[str, torch.Tensor], metadata: dict[str, str], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "books.safetensors"
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(InputError, match=says) as caught:
        read_codebooks(path)
    assert str(path) in str(caught.value)


def test_codebooks_are_read_of_safetensors_only(tmp_path: Path) -> None:
    np.savez(tmp_path / "books.npz", np.ones((2, 8)))
    with pytest.raises(
        InputError, match=r"is not a \.safetensors file; save the codebooks in one, .* factor_0"
    ):
        read_codebooks(tmp_path / "books.npz")


@pytest.mark.parametrize("binding", sorted(BINDINGS))
def test_the_dataset_is_the_problems(binding: str) -> None:
    adapter = CodebookProblems()
    options = {**SMALL, "binding": binding, "superposed": 2}
    problems = adapter.problems("test", seed=1, **options)
    data = adapter.load("test", limit=3, seed=1, **options)
    assert data.column_names == ["vector", "truth"]
    parser = CodebookProducts([6, 6, 6], 128)
    for row, example in enumerate(data):
        vector = torch.tensor(example["vector"])
        vector = torch.view_as_complex(vector) if binding == "fhrr" else vector
        assert torch.equal(vector, problems.vectors[row])
        assert torch.equal(parser.parse(example, NO_FRAME), problems.truth[row])
    assert row == 2
    other = adapter.problems("val", seed=1, **options)
    assert not torch.equal(other.vectors, problems.vectors)


def test_the_dataset_of_a_folder(tmp_path: Path) -> None:
    adapter = registry.dataset("codebook")
    problems = random_problems(4, 2, 32, 3, seed=5)
    write_problems(tmp_path / "test.safetensors", problems)
    data = adapter.load("test", data_root=tmp_path)
    assert torch.equal(torch.tensor(data["vector"][:]), problems.vectors)
    assert [row[0] for row in data["truth"][:]] == problems.truth.tolist()
    with pytest.raises(InputError, match=r"no val\.safetensors"):
        adapter.load("val", data_root=tmp_path)
    with pytest.raises(UsageError, match=r"works on problems drawn at random only, .*; leave it out"):
        adapter.load("test", data_root=tmp_path, dim=64)
    books = [torch.ones(2, 4), torch.ones(2, 4)]
    write_codebooks(tmp_path / "val.safetensors", books, "map", {"vectors": torch.ones(1, 4)})
    with pytest.raises(InputError, match="no tensor 'truth'"):
        adapter.load("val", data_root=tmp_path)
    more = {"vectors": torch.ones(1, 4), "truth": torch.tensor([[0, 2]])}
    write_codebooks(tmp_path / "val.safetensors", books, "map", more)
    with pytest.raises(InputError, match="codewords that its codebooks do not have"):
        adapter.load("val", data_root=tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"codewords": 1}, "at least 2"),
        ({"factors": 2.5}, "whole number"),
        ({"dim": "big"}, "dim must be a whole number"),
        ({"noise": -1}, "at least 0"),
        ({"binding": "xor"}, "map, hrr, fhrr"),
        ({"colour": "red"}, "no option 'colour'"),
    ],
)
def test_problems_that_cannot_be_drawn(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        CodebookProblems().load("test", **options)


@pytest.mark.parametrize("binding", sorted(BINDINGS))
def test_torchhd_tensors_are_taken_apart(binding: str, tmp_path: Path) -> None:
    torchhd = pytest.importorskip("torchhd")
    torch.manual_seed(0)
    books = [torchhd.random(7, 300, binding.upper()) for _ in range(3)]
    truth = torch.randint(0, 7, (6, 3))
    bound = books[0][truth[:, 0]]
    for book, index in zip(books[1:], truth.T[1:], strict=True):
        bound = torchhd.bind(bound, book[index])
    assert type(bound).__name__ == f"{binding.upper()}Tensor"

    plain = [book.as_subclass(torch.Tensor)[index] for book, index in zip(books, truth.T, strict=True)]
    ours = BINDINGS[binding].bind(*plain)
    assert torch.allclose(ours, bound.as_subclass(torch.Tensor), atol=1e-5)

    codebooks = Codebooks([book.as_subclass(torch.Tensor) for book in books], binding)
    found = decompose(bound.as_subclass(torch.Tensor), codebooks)
    assert torch.equal(found.indices, truth)
    assert float(found.confidence.min()) > 0.99

    path = tmp_path / "hd.safetensors"
    write_codebooks(path, books, binding, {"vectors": bound})
    np.save(tmp_path / "bound.npy", bound.numpy())
    assert torch.equal(read_vectors(path), read_vectors(tmp_path / "bound.npy"))
    again = decompose(read_vectors(path), read_codebooks(path))
    assert torch.equal(again.indices, truth)
    assert torch.allclose(again.similarity, torch.ones(6), atol=1e-4)


@pytest.mark.parametrize("binding", sorted(BINDINGS))
def test_torchhd_tensors_need_no_conversion(binding: str) -> None:
    torchhd = pytest.importorskip("torchhd")
    torch.manual_seed(1)
    books = [torchhd.random(5, 256, binding.upper()) for _ in range(2)]
    bound = torchhd.bind(books[0][[3, 1]], books[1][[0, 4]])
    found = decompose(bound, Codebooks(books, binding))
    assert found.indices.tolist() == [[3, 0], [1, 4]]
