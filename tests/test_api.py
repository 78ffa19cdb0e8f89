"""The library's face: every kind of model and input, and records that are what the commands print."""

from __future__ import annotations

import copy
import gc
import io
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from codebook_files import write_problems
from conftest import ROOT, Here
from PIL import Image
from safetensors.torch import load_file
from test_cli import schema

import igm_cli as igm
from igm_cli.commands import schemas
from igm_cli.core.decomposition.problems import random_problems
from igm_cli.session import ImageSession

QUICK: dict[str, Any] = {"draws": 2}


def valid(result: igm.Result) -> dict[str, Any]:
    """The record of a result, which its schema allows."""
    record = result.to_dict()
    jsonschema.validate(record, schema(record["schema"].replace("/", "-")), jsonschema.Draft202012Validator)
    return record


def printed(here: Here, *arguments: object) -> dict[str, Any]:
    """The one JSON line of a command."""
    code, out, _ = here(*arguments, "--json", "--device", "cpu")
    assert code == 0
    return dict(json.loads(out))


def untimed(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "seconds"}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> igm.Model:
    return igm.load(tiny_model, device="cpu")


def test_the_package_is_light_to_import() -> None:
    code = (
        "import sys, igm_cli; igm_cli.__version__; dir(igm_cli); "
        "print(sorted({'torch', 'numpy', 'pydantic', 'PIL', 'scipy', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'loda'"):
        igm.loda  # noqa: B018
    assert set(igm.__all__) <= set(dir(igm)) and issubclass(igm.MissingError, igm.IgmError)


def test_a_result_is_the_record_that_the_command_prints(
    model: igm.Model, tiny_model: Path, pictures: Path, here: Here
) -> None:
    image = pictures / "1.png"
    result = model.invert(image, k=2, **QUICK)
    line = printed(here, "invert", image, "--model", tiny_model, "--k", 2, "--draws", 2)
    assert untimed(valid(result)) == untimed(line)
    counted = model.count(image, **QUICK)
    line = printed(here, "estimate-k", image, "--model", tiny_model, "--draws", 2)
    assert untimed(valid(counted)) == untimed(line)
    assert counted.k == line["k"] and counted.k_curve == line["k_curve"] and "discriminative" not in line


def test_images_in_every_form_give_the_same(model: igm.Model, pictures: Path) -> None:
    path = pictures / "1.png"
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    pixels = np.asarray(picture)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    forms: list[Any] = [path, str(path), picture, pixels, pixels / 255.0, tensor, tensor.float() / 255]
    forms += [(tensor.float() / 255).to_sparse()]
    results = model.invert(forms, k=2, **QUICK)
    assert all(each.items == results[0].items for each in results)
    assert [each.image for each in results[:2]] == [str(path)] * 2
    assert results[3].image == "image 4"
    assert results[3].sha256 == results[2].sha256 != results[0].sha256
    alone = model.invert(pixels, k=2, **QUICK)
    assert alone.image == "image" and alone.items == results[0].items


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.zeros((4, 8, 8, 3)), "several of them as a list"),
        (torch.zeros(8, 9, 3), r"has the shape \[8, 9, 3\]"),
        (np.full((8, 8, 3), -0.5), r"beyond 0\.\.1 .*-0.5\.\.-0.5"),
        (np.full((8, 8, 3), 300), "beyond 0..255"),
        (np.full((8, 8, 3), np.nan), "not finite"),
        (np.zeros((8, 8, 3), dtype=complex), "the type complex128"),
        (np.zeros((1, 8, 3)), "8×1 pixels"),
        ("nowhere.png", "does not exist"),
        (None, "image is None; check the path given to its reader"),
        ((each for each in "ab"), "image is of the type generator; make a list"),
        (b"GIF89a", r"image is of the type bytes; give the bytes of a file as io.BytesIO\(...\)"),
        ({"a": 1}, "image is of the type dict; give a path"),
        (
            np.zeros((8, 8, 3)).tolist(),
            r"image 1 is of the type list; make an array of numbers by numpy.array\(...\)",
        ),
        ([1, 2], r"image 1 is of the type int; make an array"),
    ],
)
def test_what_is_no_image_is_refused(model: igm.Model, value: Any, says: str) -> None:
    with pytest.raises(igm.IgmError, match=says):
        model.invert(value)


def test_a_folder_with_the_name_of_a_bundled_model(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_model, tmp_path / "clevr-pos")
    monkeypatch.chdir(tmp_path)
    for path in ("./clevr-pos", Path("clevr-pos")):
        assert igm.load(path, device="cpu").image_size == (32, 32)
    with pytest.raises(igm.IgmError, match=r"bundled model and a folder here; write \./clevr-pos"):
        igm.load("clevr-pos")


def test_what_a_result_shows(model: igm.Model, pictures: Path) -> None:
    result = model.invert(pictures / "1.png", k=2, **QUICK)
    assert result.k == 2 == len(result.items) == len(result.confidence)
    assert result.confidence == [item["confidence"] for item in result.items]
    assert result.overlay().size == (64 * 12, 40 * 12)
    page = result._repr_html_()
    assert page.startswith('<img src="data:image/png;base64,') and "<th>x_px</th>" in page
    assert "<th>stderr</th>" in model.count(pictures / "1.png", **QUICK)._repr_html_()


def test_progress_and_batches(model: igm.Model, pictures: Path) -> None:
    told: list[tuple[str, int, int]] = []
    paths: Sequence[Path] = sorted(pictures.iterdir())
    results = model.invert(list(paths), k=1, batch_size=2, progress=lambda *what: told.append(what), **QUICK)
    assert [told_ for told_ in told if told_[0] == "images"] == [
        ("images", 0, 3),
        ("images", 2, 3),
        ("images", 3, 3),
    ]
    told.clear()
    model.invert(paths[0], k=1, progress=lambda *what: told.append(what), **QUICK)
    assert told[0] == ("images", 0, 1) and told[-1] == ("images", 1, 1) and len(told) > 2
    for path, result in zip(paths, results, strict=True):
        assert model.invert(path, k=1, **QUICK).items == result.items


def test_settings_are_checked(model: igm.Model, pictures: Path, tiny_attributes: Path) -> None:
    for settings, says in (
        ({"method": "relax"}, "relax"),
        ({"draws": 0}, "draws"),
        ({"drawz": 3}, "did you mean draws"),
        ({"progres": print}, "did you mean progress"),
        ({"restarts": 3}, "--method sgd"),
    ):
        with pytest.raises(igm.IgmError, match=says):
            model.invert(pictures / "0.png", **settings)  # type: ignore[arg-type]
    with pytest.raises(igm.IgmError, match="crop or squash"):
        model.invert(pictures / "0.png", fit="bend")
    attributes = igm.load(tiny_attributes, device="cpu")
    with pytest.raises(igm.IgmError, match="nothing to count"):
        attributes.count(pictures / "0.png")
    with pytest.raises(igm.IgmError, match="no model 'clevr'"):
        igm.load("clevr")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda model, image: igm.load("clevr-pos", devise="cpu"),
            "load has no argument 'devise'; did you mean device",
        ),
        (
            lambda model, image: igm.load("clevr-pos", labels=["a"]),
            "labels is about text-to-image models, and clevr-pos is none",
        ),
        (
            lambda model, image: igm.decompose(image, image, iteration=1),
            "decompose has no argument 'iteration'; did you mean iterations",
        ),
        (lambda model, image: igm.load("nope"), "bundled are animals-tiny, blood-cells"),
        (lambda model, image: igm.load(["clevr-pos"]), "a model is given by its name, folder or file"),
        (lambda model, image: igm.load("animals-tiny", labels="cat,dog"), "labels must be a list of text"),
        (lambda model, image: igm.load("animals-tiny", labels=[3, 4]), "labels must be a list of text"),
        (
            lambda model, image: igm.load("animals-tiny", templates="a {label}"),
            "templates must be a list of text",
        ),
        (
            lambda model, image: igm.load("animals-tiny", templates=["a dog"]),
            r"template 'a dog' of templates has no {label}, where the label goes",
        ),
        (
            lambda model, image: igm.load("animals-tiny", templates=["a {label} {foo}"]),
            "has {foo}; only one {label} is filled in",
        ),
        (
            lambda model, image: igm.load("animals-tiny", templates=["a {label}", "a {label}"]),
            "templates holds 'a {label}' twice",
        ),
        (lambda model, image: igm.load("animals-tiny", labels=[]), "labels holds no label; give two"),
        (
            lambda model, image: igm.load("animals-tiny", labels=["cat", "dog", " nothing"]),
            "'nothing' stands for none of the labels of animals-tiny",
        ),
        (
            lambda model, image: igm.invert(image, concept="pos"),
            "invert has no argument 'concept'; did you mean concepts",
        ),
        (
            lambda model, image: igm.generate("2 pos", sede=1),
            "generate has no argument 'sede'; did you mean seed",
        ),
        (lambda model, image: model.count(image, k=2), "count estimates k"),
        (lambda model, image: model.energy_map([image]), "is that of one image"),
        (lambda model, image: model.generate("2 pos", n=0), "n must be 1 or more"),
        (lambda model, image: model.generate("2 pos", n=1.5), "n must be a whole number"),
        (lambda model, image: model.generate(3), "expression must be a list of text"),
        (lambda model, image: model.generate("2 pos", join=["clevr-pos"]), "join takes a list of models"),
        (
            lambda model, image: model.generate("pos(0.3,0.5"),
            "at character 4, a parenthesis that is not closed",
        ),
    ],
)
def test_wrong_arguments_are_named(model: igm.Model, pictures: Path, call: Any, says: str) -> None:
    with pytest.raises(igm.IgmError, match=says):
        call(model, pictures / "0.png")


def test_attributes(tiny_attributes: Path, pictures: Path) -> None:
    result = igm.invert(pictures / "0.png", tiny_attributes, device="cpu", draws=4)
    assert [item["factor"] for item in valid(result)["items"]] == ["Smiling", "hair"]
    assert result.typicality is not None and result.typicality < 0.01


def test_labels(pictures: Path, here: Here) -> None:
    """The bundled text-to-image model."""
    given = {"k": 1, "draws": 2, "max_draws": 2, "seed": 3}
    result = igm.load("animals-tiny", labels=["dog", "frog"], device="cpu").invert(pictures / "0.png", **given)
    options = ("--labels", "dog,frog", "--k", 1, "--draws", 2, "--max-draws", 2, "--seed", 3)
    line = printed(here, "zero-shot", pictures / "0.png", *options)
    assert untimed(valid(result)) == untimed(line)
    assert isinstance(result, igm.LabelResult)
    assert [each["label"] for each in result.labels][:1] == [result.items[0]["label"]]
    assert result.overlay().size[0] > 64
    with pytest.raises(igm.IgmError, match="two labels or more"):
        igm.load("animals-tiny", labels=["dog"])
    with pytest.warns(
        UserWarning,
        match=r"animals-tiny was not trained on 'unicorn', 'rabit' \(did you mean rabbit\?\); treat the result as a guess",
    ):
        opened = igm.load("animals-tiny", labels=["dog", "unicorn", "rabit"], device="cpu")
    with pytest.warns(UserWarning, match="animals-tiny was not trained to draw"):
        opened.generate("dog", steps=2)


def test_codebooks(tmp_path: Path, here: Here) -> None:
    problems = random_problems(12, 3, 512, 4, seed=2)
    file = tmp_path / "books.safetensors"
    write_problems(file, problems)
    from_file = igm.decompose(file, file, device="cpu")
    assert isinstance(from_file, list)
    indices = [[item["index"] for item in result.items] for result in from_file]
    assert indices == problems.truth.tolist()
    code, out, _ = here("decompose", file, "--codebooks", file, "--json", "--device", "cpu")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [untimed(valid(result)) for result in from_file] == [untimed(line) for line in lines]
    books = [book.numpy() for book in problems.codebooks.spectra]
    alone = igm.decompose(problems.vectors[0].numpy(), books, device="cpu")
    assert isinstance(alone, igm.VectorResult)
    assert alone.items == from_file[0].items and alone.binding == "map"
    count = igm.count(problems.vectors[:2].sum(0), codebooks=problems.codebooks, device="cpu")
    assert valid(count)["k"] == 2
    with pytest.raises(igm.IgmError, match="vector 0 is zero"):
        igm.decompose(torch.zeros(512), books)


def test_vectors_and_codebooks_in_every_form(tmp_path: Path) -> None:
    problems = random_problems(12, 3, 512, 2, seed=2)
    books = problems.codebooks.spectra
    array = problems.vectors.numpy()
    np.save(tmp_path / "y.npy", array[0])
    write_problems(tmp_path / "books.safetensors", problems)
    held = load_file(tmp_path / "books.safetensors")
    named: Any = {"shape": books[0].numpy(), "color": books[1].tolist(), "place": list(books[2])}
    readonly = np.load(tmp_path / "y.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for vectors in (tmp_path / "y.npy", readonly, array[0].tolist(), problems.vectors[0].requires_grad_()):
            alone: Any = igm.decompose(vectors, books, device="cpu")
            assert [item["index"] for item in alone.items] == problems.truth[0].tolist()
        for several, codebooks in (
            (list(array), held),
            (list(problems.vectors), named),
            (array.tolist(), books),
        ):
            found: Any = igm.decompose(several, codebooks, device="cpu")
            assert [[item["index"] for item in each.items] for each in found] == problems.truth.tolist()
    assert igm.count(tmp_path / "y.npy", codebooks=held, device="cpu").k == 1
    wrong: Any = (
        (array, None, r"a .safetensors file, or an array or tensor \[n,D\] of each factor, not None"),
        (array, {"factor_1": books[0]}, "has factor_1 but no factor_0"),
        (array, {"one": "a"}, "codebook 0 holds texts, not numbers"),
        ([array[0], array[1, :5]], books, "the array of vectors cannot be made one array"),
        ({"y": array}, books, "holds values of the type object, not numbers"),
        (array[0] > 0, books, "holds truth values"),
    )
    for vectors, codebooks, says in wrong:
        with pytest.raises(igm.IgmError, match=says):
            igm.decompose(vectors, codebooks, device="cpu")
    with pytest.raises(igm.IgmError, match=r"cannot be a list; name it as count\(vectors, codebooks=...\)"):
        igm.count(array, books)  # type: ignore[call-overload]
    with pytest.warns(
        UserWarning, match=r"explains \d\d % of the vector; the rest is noise, or products that are no"
    ):
        noise = torch.randn(512, generator=torch.Generator().manual_seed(0))
        igm.count(problems.vectors[0] + 2 * noise, codebooks=books, device="cpu")


def test_the_schemas_are_those_of_the_models() -> None:
    generated = schemas.schemas()
    assert {path.name for path in schemas.SCHEMAS.iterdir()} == set(generated)
    for name, content in generated.items():
        jsonschema.Draft202012Validator.check_schema(content)
        assert json.loads((schemas.SCHEMAS / name).read_text(encoding="utf-8")) == content, (
            "run python -m igm_cli.commands.schemas"
        )


def test_a_result_is_pickled_without_its_image(model: igm.Model, tmp_path: Path) -> None:
    result = model.invert(Image.new("RGB", (48, 32), "teal"), k=1, **QUICK)
    again = pickle.loads(pickle.dumps(result))
    assert type(again) is type(result) and again.to_dict() == result.to_dict()
    with pytest.raises(igm.IgmError, match="a result from another process or a file has no image"):
        again.overlay()
    assert copy.deepcopy(result).overlay().size == result.overlay().size
    record = json.loads(json.dumps(result.to_dict()))
    assert "<table>" in again._repr_html_() and igm.ImageResult(**record).items == result.items
    shared = model.invert_shared([Image.new("RGB", (48, 32), name) for name in ("teal", "gold")], k=1, **QUICK)
    with pytest.raises(igm.IgmError, match="has no image"):
        pickle.loads(pickle.dumps(shared)).overlays()
    [drawn] = model.generate("pos(0.3,0.5)", steps=2)
    assert pickle.loads(pickle.dumps(drawn)) == drawn
    with pytest.raises(igm.IgmError, match="a result from a file has no picture"):
        _ = igm.GeneratedImage(**drawn.to_dict()).picture


def test_images_are_not_held_decoded(model: igm.Model, pictures: Path) -> None:
    session = ImageSession(model, k=1, batch_size=2, given=QUICK)
    inputs = session.inputs(sorted(pictures.iterdir()))
    assert len(session.in_batches(session.invert, inputs, None)) == 3
    assert not any("data" in vars(each) for each in inputs)


def test_a_pipeline_knows_labels_alone() -> None:
    with pytest.raises(igm.IgmError, match="knows labels, not 'pos'; leave out the concepts"):
        igm.load("animals-tiny", concepts="pos")


def test_a_result_holds_a_files_content_and_not_its_pixels(model: igm.Model, tmp_path: Path) -> None:
    Image.effect_noise((480, 320), 60).convert("RGB").save(tmp_path / "a.png")
    results = [model.invert(tmp_path / "a.png", k=1, **QUICK) for _ in range(3)]
    drawn = [result.overlay().tobytes() for result in results]
    gc.collect()
    alive = [each for each in gc.get_objects() if type(each) is Image.Image and each.size == (480, 320)]
    assert not alive and drawn[0] == drawn[1] == drawn[2]
    (tmp_path / "a.png").unlink()
    assert results[0].overlay().tobytes() == drawn[0]


def test_a_repr_is_short_and_says_when_an_answer_is_a_guess(model: igm.Model, tiny_attributes: Path) -> None:
    image = Image.new("RGB", (48, 32), "teal")
    found = model.invert(image, k=7, **QUICK)
    assert "k=7" in repr(found) and "... 2 more]" in repr(found) and "sha256" not in repr(found)
    assert not found.is_guess and "A guess" not in found._repr_html_()
    doubtful = igm.invert(image, tiny_attributes, device="cpu", draws=4)
    assert doubtful.is_guess and "<p>A guess" in doubtful._repr_html_()


def test_doubts_about_bound_vectors_are_warnings_of_the_callers_line() -> None:
    problems = random_problems(6, 2, 200, 3, seed=0)
    noise = torch.randn(3, 200, generator=torch.Generator().manual_seed(1)).sign()
    with pytest.warns(UserWarning, match="vector 0: no product of these codewords") as said:
        igm.decompose(noise[0], problems.codebooks)
    assert said[0].filename == __file__
    with pytest.warns(UserWarning, match="3 of 3 vectors: not found to be products"):
        igm.decompose(noise, problems.codebooks)
    with pytest.warns(UserWarning, match="1 of 2 products found, and nothing is left"):
        igm.decompose(problems.vectors[0], problems.codebooks, k=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        igm.decompose(problems.vectors, problems.codebooks)


def test_numbers_of_numpy_are_numbers_and_others_are_refused(model: igm.Model) -> None:
    image = Image.new("RGB", (48, 32), "teal")
    plain = model.invert(image, k=1, draws=2, seed=3)
    numpy = model.invert(image, k=np.int64(1), draws=np.int32(2), seed=np.uint8(3))  # type: ignore[arg-type]
    assert untimed(valid(numpy)) == untimed(valid(plain))
    for k, told in ((2.5, "2.5"), ("3", "'3'"), ([3], r"\[3\]"), (True, "True")):
        with pytest.raises(igm.IgmError, match=f"k must be a whole number, not {told}$"):
            model.invert(image, k=k)  # type: ignore[arg-type]
    with pytest.raises(igm.IgmError, match="batch_size must be 1 or more, not 0"):
        model.invert([image, image], batch_size=0)
    with pytest.raises(igm.IgmError, match="for a list of two images or more; give a list"):
        model.invert_shared("a.png")
    problems = random_problems(6, 2, 200, 1, seed=0)
    for count, says in ((0, "k must be 1 or more"), (1.5, "k must be a whole number"), ("2", "whole number")):
        with pytest.raises(igm.IgmError, match=says):
            igm.decompose(problems.vectors, problems.codebooks, k=count)  # type: ignore[arg-type]
    with pytest.raises(igm.IgmError, match="iterations must be 1 or more, not 0"):
        igm.decompose(problems.vectors, problems.codebooks, method="resonator", iterations=0)
    for options, says in (
        ({"k_max": 0}, "k_max must be 1 or more, not 0"),
        ({"k_mox": 3}, "count with codebooks has no argument 'k_mox'; did you mean k_max"),
        ({"penalty": 3}, "count with codebooks has no argument 'penalty'"),
        ({"model": "clevr-pos"}, "takes no model"),
    ):
        with pytest.raises(igm.IgmError, match=says):
            igm.count(problems.vectors, codebooks=problems.codebooks, **options)


def test_open_files_are_images(model: igm.Model, tmp_path: Path) -> None:
    Image.effect_noise((48, 32), 60).convert("RGB").save(tmp_path / "a.png")
    named = model.invert(tmp_path / "a.png", k=1, **QUICK)
    with (tmp_path / "a.png").open("rb") as file:
        opened = model.invert(file, k=1, **QUICK)
    held = model.invert(io.BytesIO((tmp_path / "a.png").read_bytes()), k=1, **QUICK)
    assert named.items == opened.items == held.items and named.sha256 == opened.sha256 == held.sha256
    assert opened.image.endswith("a.png") and held.image == "image"
    for encoding in ("latin-1", "utf-8"):
        opened_as_text = (tmp_path / "a.png").open(encoding=encoding)
        with opened_as_text, pytest.raises(igm.IgmError, match="mode 'rb'"):
            model.invert(opened_as_text)
    with (tmp_path / "a.png").open("rb") as file, Image.open(tmp_path / "a.png") as unread:
        pass
    for closed in (file, unread):
        with pytest.raises(igm.IgmError, match=r"closed.*; open"):
            model.invert(closed)


def test_progress_is_told_to_a_function(model: igm.Model) -> None:
    image, problems = Image.new("RGB", (48, 32), "teal"), random_problems(6, 2, 200, 1, seed=0)
    calls: list[Any] = [
        lambda progress: model.invert(image, k=1, progress=progress),
        lambda progress: model.invert_shared([image, image], k=1, progress=progress),
        lambda progress: model.generate("pos(0.3,0.5)", steps=2, progress=progress),
        lambda progress: igm.decompose(problems.vectors, problems.codebooks, progress=progress),
    ]
    for call in calls:
        with pytest.raises(igm.IgmError, match=r"progress is a function of .*, such as print, not True"):
            call(True)


def test_torchs_default_type_changes_no_answer(model: igm.Model) -> None:
    image = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    usual = [model.invert(image, k=1, **QUICK), model.generate("pos(0.3,0.5)", steps=2)[0]]
    torch.set_default_dtype(torch.float64)
    try:
        other = [model.invert(image, k=1, **QUICK), model.generate("pos(0.3,0.5)", steps=2)[0]]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert [untimed(valid(each)) for each in other] == [untimed(valid(each)) for each in usual]


def test_notebooks_show_the_pictures_that_results_hold(model: igm.Model) -> None:
    picture = '<img src="data:image/png;base64,'
    image = Image.new("RGB", (48, 32), "teal")
    assert model.generate("pos(0.3,0.5)", steps=2)[0]._repr_html_().startswith(picture)
    shared = model.invert_shared([image, image], k=1, **QUICK)
    assert shared._repr_html_().count(picture) == 2
    assert pickle.loads(pickle.dumps(shared))._repr_html_().startswith("<table>")
