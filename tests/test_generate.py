"""``igm generate``: expressions become images, by one model or several, and the records say what was asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tiny_pipelines
import torch
from conftest import ROOT, Here
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_cli import schema
from test_object_concepts import chance

import igm_cli
from igm_cli.core.checkpoint import load_checkpoint, read_spec, save_checkpoint
from igm_cli.core.concepts import Categorical
from igm_cli.core.sampling import Composed, Langevin, sample
from igm_cli.errors import IgmError, InputError, UnknownConceptError, UsageError
from igm_cli.generation import Generation, GenerationSettings
from igm_cli.imaging import Frame
from igm_cli.plugins.attributes import Attributes
from igm_cli.plugins.object_concepts import ObjectConcepts
from igm_cli.plugins.positions import Positions
from igm_cli.wishes import Reader

NONE = torch.zeros(0, 2)
QUICK: dict[str, Any] = {"steps": 3}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> igm_cli.Model:
    return igm_cli.load(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def faces(tiny_attributes: Path) -> igm_cli.Model:
    return igm_cli.load(tiny_attributes, device="cpu")


def pixels(result: igm_cli.GeneratedImage) -> bytes:
    return result.picture.tobytes()


@given(st.integers(0, 6), st.integers(0, 3), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_random_places_keep_their_distance_and_lie_in_the_region(least, more, seed):
    corners = [(0.2, 0.3), (0.8, 0.3), (0.9, 0.6), (0.5, 0.9), (0.1, 0.6)]
    beside = torch.tensor([[0.5, 0.5]])
    places = Positions(corners, 0.1).ask(f"{least}-{least + more} pos", chance(seed), beside)
    assert least <= len(places) <= least + more
    both = torch.cat([beside, places])
    assert bool((torch.cdist(both, both) + torch.eye(len(both)) >= 0.0999).all())
    x, y = places.T
    assert bool(((y >= 0.3) & (y <= 0.9) & (x >= 0.1) & (x <= 0.9)).all())
    assert bool((y <= 0.6 + 0.75 * (x.minimum(1 - x) - 0.1) + 1e-4).all())  # above both lower edges


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pos(1.2,0.5)", "outside the image"),
        ("pos(a,b)", "needs two numbers"),
        ("500 pos", "no room for 500 places"),
        ("99999999999 pos", "no room"),
        ("5-3 pos", "write 3-5 pos"),
    ],
)
def test_places_that_cannot_be_meant(text, says):
    with pytest.raises(UsageError, match=says):
        Positions().ask(text, chance(), NONE)


def test_options_of_places_are_checked():
    assert len(Positions().configured({"distance": 0.4}).ask("2 pos", chance(), NONE)) == 2
    for options in ({"region": [[0, 0], [1, 1]]}, {"distance": "far"}, {"regoin": []}):
        with pytest.raises(IgmError, match="options of concepts pos"):
            Positions().configured(options)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Smiling", "yes"),
        ("Smiling=no", "no"),
        ("hair=grey", "grey"),
        ("blond", "blond"),
        ("smiling = No", "no"),
        ("Blond", "blond"),
        ("SMILING", "yes"),
    ],
)
def test_attributes_are_asked_for_by_factor_and_value(text, value):
    parser = Attributes({"Smiling": ("no", "yes"), "hair": ("black", "blond", "grey")})
    assert parser.decode(parser.ask(text, chance(), NONE), None)[0]["value"] == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("Smilng", UnknownConceptError, "did you mean Smiling"),
        ("hair=red", UsageError, "hair cannot be 'red'"),
        ("hair", UnknownConceptError, "hair=black"),
        ("red", UsageError, "a value of lips and of hat; write factor=value"),
        ("size=XL", UsageError, "size cannot be 'XL'"),
    ],
)
def test_attributes_that_are_not_known(text, error, says):
    factors = {
        "Smiling": ("no", "yes"),
        "hair": ("black", "blond"),
        "lips": ("red", "pink"),
        "hat": ("red", "blue"),
        "size": ("Xl", "xL"),  # the same regardless of case
    }
    with pytest.raises(error, match=says):
        Attributes(factors).ask(text, chance(), NONE)


def test_an_image_is_a_sample_of_the_composed_model(model):
    """The command adds nothing to the sampler but words."""
    made = model.generate("pos(0.25,0.5) AND pos(0.75,0.5):0.5", seed=3, guidance=1.5, correct=2, **QUICK)[0]
    concepts, weights = torch.tensor([[[0.25, 0.5], [0.75, 0.5]]]), torch.tensor([[1.5, 0.75]])
    composed = Composed.of(model.denoiser, concepts, guidance=weights)
    x = sample(composed, (3, 32, 32), steps=3, seed=3, sampler="ancestral", corrector=Langevin(2, 0.1))
    expected = ((x[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    assert pixels(made) == Image.fromarray(expected).tobytes()
    assert [(i["x"], i["y"]) for i in made.items] == [(0.25, 0.5), (0.75, 0.5)]
    assert made.weights == [1, 0.5] and made.network_calls > 3 * 3


def test_a_model_says_how_it_draws_best(tmp_path, model, tiny_model):
    own = {"guidance": 1.5, "sampler": "ddim"}
    tuned = igm_cli.load(other_model(tmp_path / "tuned", tiny_model, generation=own), device="cpu")
    made = tuned.generate("2 pos", seed=3, **QUICK)[0]
    assert (made.guidance, made.sampler) == (1.5, "ddim")
    assert pixels(made) == pixels(model.generate("2 pos", seed=3, **own, **QUICK)[0])
    asked = {"guidance": 1.0, "sampler": "ancestral"}
    assert pixels(tuned.generate("2 pos", seed=3, **asked, **QUICK)[0]) == pixels(
        model.generate("2 pos", seed=3, **QUICK)[0]
    )
    wrong = igm_cli.load(other_model(tmp_path / "wrong", tiny_model, generation={"guidence": 2}), device="cpu")
    with pytest.raises(InputError, match=r"unknown generation setting 'guidence'.*guidance"):
        wrong.generate("2 pos", **QUICK)


def test_the_overlap_says_whether_concepts_touch():
    model = igm_cli.load("clevr-pos", device="cpu")
    apart, close = model.generate(["pos(0.3,0.4) AND pos(0.7,0.6)", "pos(0.5,0.5) AND pos(0.52,0.5)"], steps=12)
    assert abs(apart.overlap) < 0.05 and close.overlap > 0.5


def test_an_image_depends_on_the_seed_and_its_number_alone(model):
    asked = ["1-3 pos", "pos(0.5,0.5) OR pos(0.2,0.2)"]
    every = model.generate(asked, 3, **QUICK)
    alone = model.generate(asked, 3, batch_size=1, **QUICK)
    assert [r.items for r in every] == [r.items for r in alone]
    far = max(
        abs(a - b) for r, s in zip(every, alone, strict=True) for a, b in zip(pixels(r), pixels(s), strict=True)
    )
    assert far <= 1  # of 255: other batches round otherwise
    other = model.generate(asked, 3, seed=1, **QUICK)
    assert all(pixels(a) != pixels(b) for a, b in zip(every, other, strict=True))
    assert len({len(r.items) for r in model.generate("1-3 pos", 12, **QUICK)}) > 1


def test_chance_keeps_its_distance_from_what_is_named(model):
    """Wherever it stands in the expression."""
    for result in model.generate("9 pos AND pos(0.5,0.5)", 6, steps=2):
        places = torch.tensor([[item["x"], item["y"]] for item in result.items])
        assert len(places) == 10 and bool((torch.cdist(places, places) + torch.eye(10) >= 0.0999).all())


def test_branches_are_drawn_as_often_as_they_weigh(model):
    texts = [r.clause for r in model.generate("pos(0.1,0.1) OR pos(0.9,0.9):3", 40, steps=2)]
    assert 22 <= texts.count("pos(0.9,0.9)") <= 38
    mixed = model.generate("pos(0.1,0.1) OR pos(0.9,0.9)", 2, branches="mix", **QUICK)
    assert {r.branches for r in mixed} == {"mix"} and all(len(r.items) == 1 for r in mixed)


def named(result: igm_cli.GeneratedImage) -> Mapping[str, str]:
    return {item["factor"]: item["value"] for item in result.items}


def test_not_is_one_of_the_other_values(faces):
    made = [named(r) for r in faces.generate("Smiling AND NOT hair=black", 12, steps=2)]
    assert all(each["Smiling"] == "yes" for each in made)
    assert {each["hair"] for each in made} == {"blond", "grey"}
    assert {named(r)["hair"] for r in faces.generate("NOT blond AND NOT grey", 4, steps=2)} == {"black"}


def test_not_is_one_branch_however_many_values_it_leaves(faces):
    wish = Generation([faces], GenerationSettings()).reader.read("Smiling OR NOT hair=black")
    chances = {str(branch): branch.probability for branch in wish.branches}
    assert chances == pytest.approx({"Smiling": 0.5, "hair=blond": 0.25, "hair=grey": 0.25})
    wish = Generation([faces], GenerationSettings()).reader.read(
        "Smiling OR (NOT hair=black AND NOT hair=grey)"
    )
    assert {str(b): b.probability for b in wish.branches} == pytest.approx({"Smiling": 0.5, "hair=blond": 0.5})


def test_many_nots_of_one_factor_are_no_more_branches_than_it_has_values(faces):
    wish = Generation([faces], GenerationSettings()).reader.read(" AND ".join(["NOT hair=black"] * 9))
    assert [str(branch) for branch in wish.branches] == ["hair=blond", "hair=grey"]


def test_the_mean_is_over_the_concepts_of_each_image(tmp_path, tiny_model):
    """Not over those that fill up the batch."""
    mean = igm_cli.load(other_model(tmp_path / "mean", tiny_model, composition="mean"), device="cpu")
    together = mean.generate("1-3 pos", 4, **QUICK)
    alone = mean.generate("1-3 pos", 4, batch_size=1, **QUICK)
    assert len({len(result.items) for result in together}) > 1
    for one, other in zip(together, alone, strict=True):
        assert max(abs(a - b) for a, b in zip(pixels(one), pixels(other), strict=True)) <= 1


def test_what_is_not_named_is_left_to_chance_or_left_out(faces):
    assert {named(r)["hair"] for r in faces.generate("Smiling", 16, steps=2)} == {"black", "blond", "grey"}
    assert all(named(r) == {"Smiling": "yes"} for r in faces.generate("Smiling", 4, steps=2, free="none"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("black AND blond", "black and blond exclude each other"),
        ("Smiling AND NOT Smiling", "exclude each other"),
        ("Smiling AND Smiling:5", "Smiling has two weights"),
        ("Smilin", "did you mean Smiling"),
        ("NOT hair=purple", "cannot be 'purple'"),
    ],
)
def test_contradictions_and_unknown_attributes(faces, text, says):
    with pytest.raises(UsageError, match=says):
        faces.generate(text, **QUICK)


def test_a_contradiction_in_one_branch_leaves_the_others(faces):
    made = faces.generate("black AND (blond OR Smiling)", 4, steps=2)
    assert {r.clause for r in made} == {"black AND Smiling"}


def test_not_of_a_place_is_refused_with_the_reason(model):
    with pytest.raises(UsageError, match=r"NOT cannot be said of pos\(0.5,0.5\).*complete; leave it out"):
        model.generate("NOT pos(0.5,0.5)", **QUICK)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 1}, "steps"),
        ({"guidance": -1.0}, "guidance"),
        ({"branches": "mix", "correct": 2}, "leave out --correct"),
        ({"corrector": "hmc"}, "give --correct L"),
        ({"sampler": "euler"}, "sampler"),
    ],
)
def test_options_that_cannot_be(model, options, says):
    with pytest.raises(IgmError, match=says):
        model.generate("pos(0.5,0.5)", **{**QUICK, **options})


def test_models_trained_apart_are_composed(model, faces):
    """The base of the first, and the contributions of both."""
    made = model.generate("pos(0.5,0.5) AND Smiling", join=[faces], free="none", **QUICK)[0]
    row = torch.tensor([[[0.0, 1.0, 0.0, 0.0, 0.0]]])
    joined = Composed.of(model.denoiser, torch.tensor([[[0.5, 0.5]]])) & Composed.of(faces.denoiser, row)
    x = sample(joined, (3, 32, 32), steps=3, sampler="ancestral")
    expected = ((x[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    assert pixels(made) == Image.fromarray(expected).tobytes()
    assert made.model.count(" + ") == 1 and len(made.items) == 2
    with pytest.raises(UnknownConceptError, match=r"'cat' is not a place.*unknown attribute 'cat'"):
        model.generate("cat", join=[faces], **QUICK)


def test_which_model_gives_the_base_does_not_depend_on_the_batch(model, faces):
    """Also where a branch names the second model alone."""
    asked = {"join": [faces], "free": "none", "steps": 3}
    together = model.generate("pos(0.5,0.5) OR Smiling", 6, **asked)
    alone = model.generate("pos(0.5,0.5) OR Smiling", 6, batch_size=1, **asked)
    assert {result.clause for result in together} == {"pos(0.5,0.5)", "Smiling"}
    for one, other in zip(together, alone, strict=True):
        assert max(abs(a - b) for a, b in zip(pixels(one), pixels(other), strict=True)) <= 1


def other_model(folder: Path, source: Path, **changes: Any) -> Path:
    """A copy of a checkpoint with another description."""
    from dataclasses import replace

    spec = replace(read_spec(source), **changes)
    save_checkpoint(folder, spec, load_checkpoint(source).denoiser.state_dict())
    return folder


def test_models_that_do_not_fit_each_other(tmp_path, model, tiny_attributes):
    schedule = {**read_spec(tiny_attributes).schedule, "beta_schedule": "linear"}
    slow = igm_cli.load(other_model(tmp_path / "slow", tiny_attributes, schedule=schedule), device="cpu")
    with pytest.raises(IgmError, match="different noise schedules"):
        model.generate("pos(0.5,0.5) AND Smiling", join=[slow], **QUICK)
    options = {**read_spec(tiny_attributes).options, "image_size": [16, 16]}
    small = other_model(tmp_path / "small", tiny_attributes, image_size=(16, 16), options=options)
    with pytest.raises(IgmError, match="32×32 pixels and 'small' of 16×16"):
        model.generate("pos(0.5,0.5) AND Smiling", join=[igm_cli.load(small, device="cpu")], **QUICK)


def test_a_model_that_adds_to_another_needs_it(tmp_path, model, tiny_attributes):
    spec = read_spec(tiny_attributes)
    added = other_model(tmp_path / "added", tiny_attributes, info={**spec.info, "with": ["tiny-pos"]})
    second = igm_cli.load(added, device="cpu")
    assert model.generate("pos(0.5,0.5) AND Smiling", join=[second], **QUICK)[0].guidance == 1
    tuned = igm_cli.load(
        other_model(tmp_path / "tuned", tiny_attributes, generation={"guidance": 2.0}), device="cpu"
    )
    asked = "pos(0.5,0.5) AND Smiling"
    (apart,) = model.generate(asked, join=[tuned], free="none", **QUICK)
    assert apart.guidance == [1, 2]
    assert pixels(apart) == pixels(model.generate(f"{asked}:2", join=[second], free="none", **QUICK)[0])
    with pytest.raises(UsageError, match="name tiny-pos first"):
        second.generate("Smiling", **QUICK)
    with pytest.raises(UsageError, match="predicts nothing by itself, it adds to tiny-pos"):
        second.invert(Image.new("RGB", (32, 32)))


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from igm_cli.core.models.pipeline_files import quiet

    with quiet():
        return tiny_pipelines.build(tmp_path_factory.mktemp("painter") / "tiny", "sd1")


def test_a_text_to_image_model_draws_labels(painter):
    made = igm_cli.generate("cat AND NOT dog", painter, 2, device="cpu", **QUICK)
    assert [r.items for r in made] == [[{"label": "cat", "confidence": None}]] * 2
    assert {(r.guidance, r.sampler) for r in made} == {(7.5, "ddim")} and made[0].weights == [1, -1]
    several = igm_cli.generate("cat", painter, device="cpu", particles=2, **QUICK)
    assert several[0].sampler == "ancestral"
    assert made[0].picture.size == tuple(made[0].size) and pixels(made[0]) != pixels(made[1])
    assert pixels(igm_cli.generate("cat", painter, device="cpu", **QUICK)[0]) != pixels(made[0])
    with pytest.raises(UsageError, match="it shows dog and does not"):
        igm_cli.generate("dog AND NOT dog", painter, device="cpu", **QUICK)


def test_a_flow_draws_labels(tmp_path):
    from igm_cli.core.models.pipeline_files import quiet

    with quiet():
        folder = tiny_pipelines.build(tmp_path / "tiny", "sd3")
    made = igm_cli.generate("cat AND dog", folder, 1, device="cpu", size=16, sampler="ancestral", **QUICK)
    assert made[0].picture.size == (16, 16)
    assert pixels(made[0]) != pixels(igm_cli.generate("cat", folder, 1, device="cpu", size=16, **QUICK)[0])


def test_a_label_is_guided_as_diffusers_guides_a_prompt(painter, monkeypatch):
    """eps_u + w (eps_c - eps_u), as classifier-free guidance has it."""
    from igm_cli.label_models import open_to_draw

    told: list[str] = []
    monkeypatch.setattr("igm_cli.label_models.LARGE", 1)
    opened = open_to_draw(str(painter), "cpu", ["cat"], loading={"dtype": "float32"}, note=told.append)
    denoiser: Any = opened.denoiser
    assert opened.denoiser is denoiser and told == ["igm: loading tiny (0.0 GB on disk)"]
    x = torch.randn(1, *denoiser.latent_shape, generator=chance())
    model = Composed.of(denoiser, torch.ones(1, 1, 1), guidance=7.5)
    pipe = denoiser.parts.pipe
    prompt, empty = pipe.encode_prompt("cat", "cpu", 1, True)
    with torch.no_grad():
        eps, eps_u = (pipe.unet(x, 500, encoder_hidden_states=e)[0] for e in (prompt, empty))
    torch.testing.assert_close(model.predict(x, 500).epsilon, eps_u + 7.5 * (eps - eps_u), atol=1e-4, rtol=1e-3)


def test_more_steps_than_the_model_has_are_refused(model, here, tiny_model, tmp_path):
    with pytest.raises(UsageError, match="has 1000 timesteps, so --steps is at most 999, not 1000"):
        model.generate("pos(0.3,0.5)", steps=1000)
    done = here("generate", "pos(0.3,0.5)", "--model", tiny_model, "--steps", 1000, "-o", tmp_path / "out")
    assert done.code == 2 and not (tmp_path / "out").exists()


def run(here: Here, *arguments: object) -> tuple[int, list[dict[str, Any]], str]:
    code, out, err = here("generate", *arguments, "--json", "--device", "cpu", "--steps", "3")
    return code, [json.loads(line) for line in out.splitlines()], err


def test_the_command_keeps_pictures_and_records_and_goes_on(tmp_path, here, tiny_model):
    out, grid = tmp_path / "out", tmp_path / "sheet.png"
    asked = ("pos(0.3,0.5)", "1-2 pos", "--model", tiny_model, "-o", out)
    code, first, _ = run(here, *asked, "-n", 2)
    assert code == 0 and len(first) == 4
    assert here("generate", *asked, "-n", 2, "--steps", 3, "--device", "cpu").out.endswith(
        ", 4 of them from an earlier run\n"
    )
    for record in first:
        jsonschema.validate(record, schema("igm.generate-1"), jsonschema.Draft202012Validator)
        with Image.open(record["image"]) as picture:
            assert list(picture.size) == record["size"] == [32, 32]
            assert json.loads(picture.text["igm"])["expression"] == record["expression"]  # type: ignore[attr-defined]
    kept = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert kept == first
    old = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    lost = Path(first[3]["image"])
    lost.unlink()
    code, again, _ = run(here, *asked, "-n", 3, "--grid", grid)
    assert code == 0 and len(again) == 6 and len(list(out.glob("*.png"))) == 6 and lost.is_file()
    assert all(path.stat().st_mtime_ns == time for path, time in old.items() if path != lost)
    assert [r["items"] for r in again if r["index"] < 2] == [r["items"] for r in first]
    with Image.open(grid) as sheet:
        assert sheet.size == (3 * 244 - 4, 2 * 268 - 4)
        for top in (0, 268):  # the expression stands above its row
            assert sheet.convert("L").crop((0, top, 240, top + 24)).getextrema()[0] < 100


def test_the_command_refuses_what_is_not_its_own(tmp_path, here, tiny_model):
    asked = ("pos(0.3,0.5)", "--model", tiny_model, "-o", tmp_path)
    _, [record], _ = run(here, *asked)
    Image.new("RGB", (9, 9)).save(record["image"])
    before = Path(record["image"]).read_bytes()
    code, _, said = run(here, *asked)
    assert code == 2 and "which igm did not draw" in said and Path(record["image"]).read_bytes() == before
    code, _, said = run(here, *asked[:3], "-o", record["image"])
    assert code == 2 and "is a file; name a folder" in said
    for name in ("-", "all.png"):
        code, _, said = run(here, *asked[:3], "-o", tmp_path / name)
        assert code == 2 and f"--output takes a folder, not {name}" in said and not (tmp_path / name).exists()
    code, made, said = run(here, *asked[:3], "-o", tmp_path / "new", "--grid", f"{record['image']}/grid.png")
    assert code == 3 and "cannot write" in said and not made and not (tmp_path / "new").exists()
    Path(record["image"]).unlink()
    code, _, said = run(here, *asked, "--seed", 5, "--or", "mix", "--guidance", 1.5)
    says = "made with other options (--guidance was 1 and is 1.5, --seed was 0 and is 5, --or was draw and is mix); choose"
    assert code == 3 and says in said
    another = shutil.copytree(tiny_model, tmp_path.parent / f"{tiny_model.name}-2")
    (another / "igm.json").write_text((another / "igm.json").read_text().replace('"sum"', '"mean"'))
    code, _, said = run(here, asked[0], "--model", another, "-o", tmp_path)
    assert code == 3 and f"(--model was {tiny_model.name} and is {another.name})" in said
    code, _, said = run(here, *asked, "--free", "none")  # of which records do not tell
    assert code == 3 and "another model or other options" in said


def test_like_draws_what_was_found(tmp_path, here, tiny_model, pictures):
    found = tmp_path / "found.jsonl"
    command = ("invert", pictures, "--model", tiny_model, "-o", found, "--json", "--device", "cpu", "--k", 2)
    code, out, _ = here(*command)
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    code, made, _ = run(here, "--like", found, "--model", tiny_model, "-o", tmp_path / "out")
    assert code == 0 and len(made) == len(records)
    square = next(r for r in records if r["size"] == [32, 32])
    twin = next(m for m in made if m["expression"].startswith(f"like {Path(square['image']).name} ("))
    for old, new in zip(square["items"], twin["items"], strict=True):
        assert (new["x"], new["y"]) == pytest.approx((old["x"], old["y"]), abs=1e-5)
    code, [again], _ = run(here, "--like", square["image"], "--model", tiny_model, "-o", tmp_path / "two")
    assert code == 0 and again["expression"].partition(" (")[0] == twin["expression"].partition(" (")[0]
    ppm, capital = tmp_path / "photo.PPM", tmp_path / "FOUND.JSONL"
    Image.open(square["image"]).convert("RGB").save(ppm)
    capital.write_bytes(found.read_bytes())
    call = ("--like", ppm, "--like", capital, "--model", tiny_model, "-o", tmp_path / "three")
    code, made, said = run(here, *call)
    assert code == 0 and len(made) == 1 + len(records), said
    renamed = [{**records[0], "image": "p/1.png"}, {**records[0], "image": "q/1.png", "items": []}]
    outside = {**records[0], "items": [{**records[0]["items"][0], "x": 1.7}]}
    nothing = {**records[0], "items": [{**records[0]["items"][0], "x": None}]}
    both = tmp_path / "both.jsonl"
    both.write_text("".join(json.dumps(record) + "\n" for record in [*renamed, renamed[1]]))
    call = ("--like", both, "--model", tiny_model, "-o", tmp_path / "both")
    code, made, _ = run(here, *call)
    assert code == 0 and [len(m["items"]) for m in made] == [2, 0] and made[0]["image"] != made[1]["image"]
    both.write_text(json.dumps(renamed[1]) + "\n")  # another content under the same name
    code, made, _ = run(here, *call)
    assert code == 0 and [len(m["items"]) for m in made] == [0]
    others = {**nothing, "model": "animals-tiny"}
    for record, says in (
        (outside, "outside the part of the image"),
        (nothing, "are not those of the model"),
        (others, "were found by animals-tiny; add --model animals-tiny"),
    ):
        both.write_text(json.dumps(record) + "\n")
        code, made, said = run(here, *call)
        assert code == 3 and not made and says in said
    common = {"schema": "igm.invert-shared/1", "images": [records[0], records[0]], "items": records[0]["items"]}
    both.write_text(json.dumps(common) + "\n")
    code, [made], _ = run(here, "--like", both, "--model", tiny_model, "-o", tmp_path / "four")
    assert code == 0 and len(made["items"]) == len(records[0]["items"])
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    code, _, said = run(here, "--like", bad, "--model", tiny_model, "-o", tmp_path / "three")
    assert code == 3 and "not results of igm invert" in said


def test_a_model_that_no_expression_names_is_told_of_and_not_recorded(tmp_path, here, tiny_model):
    twin = shutil.copytree(tiny_model, tmp_path / "twin")
    asked = ("pos(0.3,0.5)", "--model", tiny_model, "--model", twin, "-o", tmp_path / "out")
    code, [made], said = run(here, *asked)
    assert code == 0 and made["model"] == Path(tiny_model).name and made["concepts"] == "pos"
    assert "no expression names a concept for twin" in said


def test_a_moved_folder_gives_its_present_paths_and_a_sheet_has_rows(tmp_path, here, tiny_model):
    asked = ("1 pos", "--model", tiny_model, "-n", "20")
    code, made, _ = run(here, *asked, "-o", tmp_path / "out", "--grid", tmp_path / "grid.png")
    assert code == 0 and Image.open(tmp_path / "grid.png").width == 9 * 244 - 4
    (tmp_path / "out").rename(tmp_path / "moved")
    code, again, _ = run(here, *asked, "-o", tmp_path / "moved")
    assert code == 0 and all(Path(m["image"]).is_file() for m in again)
    assert [m["sha256"] for m in again] == [m["sha256"] for m in made]


def test_models_that_do_not_fit_leave_nothing_behind(tmp_path, here, tiny_model, tiny_attributes):
    options = {**read_spec(tiny_attributes).options, "image_size": [16, 16]}
    small = other_model(tmp_path / "small", tiny_attributes, image_size=(16, 16), options=options)
    asked = ("pos(0.3,0.5) AND Smiling", "--model", tiny_model, "--model", small, "-o", tmp_path / "out")
    code, _, said = run(here, *asked)
    assert code == 3 and "need one size" in said and not (tmp_path / "out").exists()


def test_check_says_what_the_model_finds_again(tmp_path, here, tiny_attributes):
    code, [record], _ = run(
        here, "Smiling AND blond", "--model", tiny_attributes, "-o", tmp_path / "out", "--check"
    )
    assert code == 0 and set(record["check"]["scores"]) == {"all_right", "Smiling", "hair"}
    jsonschema.validate(record, schema("igm.generate-1"), jsonschema.Draft202012Validator)


def test_a_folder_goes_on_with_and_without_check(tmp_path, here, tiny_attributes):
    asked = ("Smiling AND blond:2", "--model", tiny_attributes, "-o", tmp_path / "out")
    code, [plain], said = run(here, *asked)
    assert code == 0, said
    assert plain["clause"] == "Smiling AND blond:2" and "check" not in plain
    _, [seen], _ = run(here, *asked, "--check")  # what is not looked at yet is drawn again, the same
    assert "check" in seen and seen["sha256"] == plain["sha256"] and seen["run"] == plain["run"]
    code, [kept, new], _ = run(here, *asked, "-n", 2)
    assert code == 0 and kept["check"] == seen["check"] and "check" not in new


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "nothing to draw"),
        (["pos(0.3,0.5) AND"], 2, "does not parse at character 17"),
        (["pos(2,0.5)"], 2, "outside the image"),
        (["dog"], 2, "is not a place"),
        (["3-5", "pos"], 2, "put quotation marks around an expression of several words: '3-5 pos'"),
        (["500 pos"], 2, "no room for 500 places"),
        (["pos(.5,.5)", "--model", "nothing"], 4, "there is no model"),
        (["pos(.3,.5) and pos(.7,.5)"], 2, "write AND in capitals"),
        (["pos(.5,.5)", "-n", "0"], 2, "--number / -n must be at least 1; see igm generate --help"),
        (["pos(.5,.5)", "--like", "photo.tif2"], 2, "--like takes an image"),
        (["--like", "."], 2, "--like . is a folder; run igm invert . -o results.jsonl first"),
    ],
)
def test_bad_requests_are_one_sentence(tmp_path, here, arguments, code, says):
    found, lines, said = run(here, *arguments, "-o", tmp_path / "out")
    assert (found, lines) == (code, []) and says in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(tmp_path, tiny_model):
    from conftest import launch_two

    what = ["generate", "1-3 pos", "-n", "4", "--batch-size", "1", "--steps", "3", "--device", "cpu", "--json"]
    out = launch_two("-m", "igm_cli", *what, "--model", tiny_model, "-o", tmp_path / "two", cwd=ROOT)
    records = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [r["index"] for r in records] == [0, 1, 2, 3]
    model = igm_cli.load(tiny_model, device="cpu")
    alone = model.generate("1-3 pos", 4, batch_size=1, steps=3)
    assert [r["sha256"] for r in records] == [r.sha256 for r in alone]
    assert not list((tmp_path / "two").glob("*.rank*"))


def test_the_bundled_model_finds_again_what_it_draws():
    model = igm_cli.load("clevr-pos", device="cpu")
    made = model.generate("pos(0.3,0.45) AND pos(0.7,0.5) AND pos(0.5,0.65)", 1, steps=25)
    for result in made:
        found = model.invert(result.picture, draws=4, max_draws=4).items
        for item in result.items:
            assert min((item["x"] - f["x"]) ** 2 + (item["y"] - f["y"]) ** 2 for f in found) < 0.03**2


def test_spaces_know_what_excludes_and_what_is_left_open():
    space = Categorical({"a": ("1", "2", "3"), "b": ("4", "5")})
    eye = torch.eye(5)
    assert torch.equal(space.alternatives(eye[1]), eye[[0, 2]])
    random = torch.Generator().manual_seed(0)
    every = [space.completed(eye[[3]], random).argmax(1).tolist() for _ in range(40)]
    assert all(first == 3 for first, _ in every) and {drawn for _, drawn in every} == {0, 1, 2}
    assert Positions.space.completed(NONE, random) is NONE
    assert len(Positions.space.alternatives(torch.zeros(2))) == 0


def test_values_that_are_not_named_are_drawn_or_said_to_be_unknown():
    parser = ObjectConcepts()
    named, every = "red cube at pos(0.3,0.5)", set()
    reader = Reader([parser], Frame((96, 64), (0.0, 0.0, 96.0, 64.0)), 0, "random")
    for number in range(40):
        (concepts,) = reader.asked(reader.read(named), number).concepts
        (item,) = parser.decode(concepts, reader.frame)
        assert (item["values"]["color"], item["values"]["shape"]) == ("red", "cube")
        every.add((item["values"]["size"], item["values"]["material"]))
    assert len(every) == 4
    reader = replace(reader, free="none")
    (concepts,) = reader.asked(reader.read(named), 0).concepts
    (item,) = parser.decode(concepts, reader.frame)
    assert item["values"] == {"color": "red", "shape": "cube"}
    assert torch.equal(parser.encode([item], reader.frame), concepts)
