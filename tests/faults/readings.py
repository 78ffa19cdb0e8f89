"""Files as people have them, with known right readings: marks of checkpoints, sizes of annotations, tables of labels, vectors."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from faults.case import Case, Check, Content, Outcome
from faults.kit import CPU, Kit
from faults.options import copy, edited


def cases(kit: Kit) -> Iterator[Case]:
    """Yields the cases."""
    yield from _marks(kit)
    yield from _unused(kit)
    yield from _families(kit)
    yield from _sizes(kit)
    yield from _tables(kit)
    yield from _vectors(kit)


def _same(*expected: str) -> Check:
    """Whether a dry run says so."""

    def check(outcome: Outcome) -> str | None:
        lacks = [words for words in expected if words not in outcome.err]
        return f"says not {lacks}: {outcome.err[-300:]!r}" if lacks else None

    return check


def _marks(kit: Kit) -> Iterator[Case]:
    """Single files that say in their keys and metadata what they are."""
    import tiny_pipelines
    import torch
    from safetensors.torch import load_file, save_file

    one, described = torch.zeros(1), kit.folder / "tiny-pipeline"  # which is made when it is first needed

    @functools.cache
    def weights() -> dict[str, Any]:
        """The pipeline as one file, without marks."""
        return load_file(tiny_pipelines.single_file(kit.pipeline, kit.folder / "plain.safetensors"))

    @functools.cache
    def error_of(prediction: str) -> float:
        """The denoising error with a prediction asked for, which tells the predictions apart."""
        from igm_cli import api

        weights()
        how = {"labels": ["cat", "dog"], "config": str(kit.pipeline), "prediction": prediction}
        model = api.load(kit.folder / "plain.safetensors", device="cpu", **how)
        return float(model.invert(kit.pictures / "0.png", draws=2, max_draws=2).denoising_error)

    def predicts(prediction: str) -> Check:
        def check(outcome: Outcome) -> str | None:
            found, right = outcome.json()[0]["denoising_error"], error_of(prediction)
            return None if abs(found - right) < 1e-6 * abs(right) else f"error {found}, of {prediction} {right}"

        return check

    def saved(more: Mapping[str, Any], metadata: Mapping[str, str], less: str = "") -> Callable[[Path], None]:
        def make(path: Path) -> None:
            kept = {name: value for name, value in weights().items() if not (less and name.startswith(less))}
            save_file({name: value.clone() for name, value in {**kept, **more}.items()}, path, dict(metadata))

        return make

    command = ("zero-shot", "a.png", "--labels", "cat,dog", "--model", "m.safetensors", "--config", str(described),
               "--draws", "2", "--max-draws", "2", "--json", *CPU)  # fmt: skip

    def case(kind: str, name: str, make: Callable[[Path], None], *words: str, **more: Any) -> Case:
        return Case(kind, name, (*command, *words), {"a.png": kit.picture, "m.safetensors": make}, **more)

    spec = "modelspec.prediction_type"
    for name, more, metadata, prediction in (
        ("none", {}, {}, "epsilon"),
        ("v_pred", {"v_pred": one}, {}, "v_prediction"),
        (f"{spec}=v", {}, {spec: "v"}, "v_prediction"),
        (f"{spec}=v_prediction", {}, {spec: "v_prediction"}, "v_prediction"),
        (f"{spec}=epsilon", {}, {spec: "epsilon"}, "epsilon"),
        ("ss_v_parameterization", {}, {"ss_v_parameterization": "True"}, "v_prediction"),
        ("no ss_v_parameterization", {}, {"ss_v_parameterization": "False"}, "epsilon"),
        ("v_pred and the same in metadata", {"v_pred": one}, {spec: "v"}, "v_prediction"),
        ("an architecture of its own kind", {}, {"modelspec.architecture": "stable-diffusion-v1"}, "epsilon"),
        ("tables of the schedule", {"betas": torch.ones(1000), "alphas_cumprod": torch.ones(1000), "model_ema.decay": one}, {}, "epsilon"),
        ("a size that is its own", {}, {"modelspec.resolution": "16x16"}, "epsilon"),
    ):  # fmt: skip
        yield case(
            "marks of a checkpoint", name, saved(more, metadata), expect="answered", check=predicts(prediction)
        )
    asked = ("--prediction", "v_prediction")
    yield case(
        "marks of a checkpoint",
        "none, and a prediction is asked for",
        saved({}, {}),
        *asked,
        expect="answered",
        check=predicts("v_prediction"),
    )
    for name, more, metadata, says in (
        ("v_pred and epsilon", {"v_pred": one}, {spec: "epsilon"}, "contradicts itself"),
        ("ztsnr", {"ztsnr": one}, {}, "ztsnr"),
        ("ztsnr and v_pred", {"ztsnr": one, "v_pred": one}, {}, "ztsnr"),
        ("zero terminal SNR of a trainer", {}, {"ss_zero_terminal_snr": "True"}, "ztsnr"),
        ("another prediction", {}, {spec: "rectified_flow"}, "rectified_flow"),
        ("an architecture of another kind", {}, {"modelspec.architecture": "stable-diffusion-xl-v1-base"}, "stable-diffusion-xl"),
        ("another architecture", {}, {"modelspec.architecture": "flux-1-dev"}, "flux-1-dev"),
        ("a LoRA by its architecture", {}, {"modelspec.architecture": "stable-diffusion-v1/lora"}, "lora"),
        ("a textual inversion", {}, {"modelspec.architecture": "stable-diffusion-v1/textual-inversion"}, "textual-inversion"),
        ("a size that cannot be", {}, {"modelspec.resolution": "17x17"}, "multiple"),
    ):  # fmt: skip
        yield case("marks of a checkpoint", name, saved(more, metadata), says=says)
    unet = "model.diffusion_model."
    for name, more, less, says in (
        ("a LoRA beside", {"lora_unet_down_blocks_0.lora_down.weight": torch.ones(4, 8)}, "", "lora_unet"),
        ("a LoRA alone", {"lora_te_text.lora_up.weight": torch.ones(8, 4)}, "model.", "lora_te"),
        ("a LoRA of diffusers", {"unet.down_blocks.0.attn1.to_q.lora_A.weight": torch.ones(4, 8)}, "", "lora"),
        ("another network", {"double_blocks.0.img_attn.qkv.weight": torch.ones(8, 8)}, "", "double_blocks"),
        ("a transformer alone", {f"{unet}joint_blocks.0.x.weight": torch.ones(8)}, "model.", "its whole pipeline"),
        ("a control net", {"control_model.input_blocks.0.0.weight": torch.ones(8)}, "", "control_model"),
        ("a U-Net of more blocks", {f"{unet}middle_block.7.weight": torch.ones(77, 3)}, "", "middle_block.7"),
        ("a U-Net that has a weight twice", {f"{unet}out.9.weight": torch.ones(8)}, "", "no place"),
        ("an autoencoder of more blocks", {"first_stage_model.decoder.extra.weight": torch.ones(99)}, "", "decoder.extra"),
    ):  # fmt: skip
        yield case("weights without a place", name, saved(more, {}, less), says=says)


def _unused(kit: Kit) -> Iterator[Case]:
    """Weights that the described network does not use, in folders."""
    import torch
    from safetensors.torch import load_file, save_file

    def changed(
        source: Callable[[], Path], file: str, change: Callable[[dict[str, Any]], object]
    ) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            copy(source(), path)
            tensors = load_file(path / file)
            change(tensors)
            save_file(tensors, path / file, {"format": "pt"})

        return make

    zero_shot = ("zero-shot", "a.png", "--labels", "cat,dog", "--model", "m", *CPU)
    unet = "unet/diffusion_pytorch_model.safetensors"
    more = {"double_blocks.0.qkv.weight": torch.ones(4)}
    lora = {"down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 8)}
    for name, file, change, says in (
        ("another network's, in the unet", unet, lambda t: t.update(more), "double_blocks"),
        ("a LoRA's, in the unet", unet, lambda t: t.update(lora), "no place"),
        (
            "another network's, in the text encoder",
            "text_encoder/model.safetensors",
            lambda t: t.update(more),
            "double_blocks",
        ),
        (
            "another network's, in the vae",
            "vae/diffusion_pytorch_model.safetensors",
            lambda t: t.update(more),
            "double_blocks",
        ),
        ("one that lacks", unet, lambda t: t.pop("conv_in.weight"), "conv_in"),
    ):
        make = changed(lambda: kit.pipeline, file, change)
        yield Case("weights without a place", name, zero_shot, {"a.png": kit.picture, "m": make}, says=says)
    invert = ("invert", "a.png", "--model", "m", *CPU)
    for name, change, says in (
        ("another network's, in a model of igm", lambda t: t.update(more), "double_blocks"),
        ("one that lacks, in a model of igm", lambda t: t.pop(min(t)), "lacks"),
        ("one of another shape, in a model of igm", lambda t: t.update({min(t): torch.ones(3)}), "shape"),
    ):
        make = changed(lambda: kit.positions, "model.safetensors", change)
        yield Case("weights without a place", name, invert, {"a.png": kit.picture, "m": make}, says=says)
    other = edited(kit, "config.json", ["head_channels"], 16)
    yield Case(
        "weights without a place",
        "a config.json of another width",
        invert,
        {"a.png": kit.picture, "m": other},
        says="shape",
    )


def _families(kit: Kit) -> Iterator[Case]:
    """Pipelines of other families, and of other purposes."""
    import torch
    from safetensors.torch import load_file, save_file

    def copied(kind: str, spoil: Callable[[Path], object] = lambda path: None) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            copy(kit.family(kind) if kind != "sd1" else kit.pipeline, path)
            spoil(path)

        return make

    def put(file: str, **values: Any) -> Callable[[Path], object]:
        return lambda path: (path / file).write_text(json.dumps(json.loads((path / file).read_text()) | values))

    def narrow(path: Path) -> None:  # a T5 of half the width
        file = path / "text_encoder_2" / "model.safetensors"
        tensors = {
            name: tensor[..., : 12 if tensor.shape[-1] == 24 else None]
            for name, tensor in load_file(file).items()
        }
        tensors = {
            name: tensor[:12] if name.endswith(("wo.weight", "SelfAttention.o.weight")) else tensor
            for name, tensor in tensors.items()
        }
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"format": "pt"})
        put("text_encoder_2/config.json", d_model=12)(path)

    def lora(path: Path) -> None:
        path.mkdir()
        save_file(
            {"transformer.blocks.0.attn.to_q.lora_A.weight": torch.ones(2, 8)},
            path / "pytorch_lora_weights.safetensors",
        )

    def zero_shot(labels: str, *words: str) -> tuple[str, ...]:
        quick = ("--draws", "2", "--max-draws", "2", "--size", "16", "--json")
        return ("zero-shot", "a.png", "--labels", labels, "--model", "m", *quick, *words, *CPU)

    long = " ".join(["of"] * 400)
    index, pets = "model_index.json", "dog,cat"
    video = put(index, _class_name="WanPipeline", transformer=["diffusers", "WanTransformer3DModel"])
    for name, make, labels, says in (
        ("video", copied("sd3", video), pets, "for video"),
        ("inpainting", copied("sd1", put(index, _class_name="StableDiffusionInpaintPipeline")), pets, "for inpainting"),
        ("changing images", copied("sd1", put(index, _class_name="StableDiffusionImg2ImgPipeline")), pets, "for changing"),
        ("audio", copied("sd3", put(index, _class_name="AudioPipeline", transformer=["diffusers", "AudioTransformer"])), pets, "AudioTransformer"),
        ("a LoRA", lora, pets, "is a LoRA"),
        ("a T5 that does not fit", copied("flux", narrow), pets, "does not fit its text encoder"),
        ("no T5", copied("flux", put(index, text_encoder_2=[None, None])), pets, "has no text_encoder_2"),
        ("a label longer than the T5's window", copied("pixart"), f"dog,{long}", "tokens and this model reads 120"),
        ("a label longer than the window of Gemma", copied("sana"), f"dog,{long}", "tokens and this model reads 299"),
        ("a class that is not known", copied("dit"), "dogs,cat", "did you mean dog"),
        ("two names of a class", copied("dit"), "dog,domestic dog", "one class"),
        ("a flow run backwards", copied("sd3", put("scheduler/scheduler_config.json", invert_sigmas=True)), pets, "not supported"),
    ):  # fmt: skip
        yield Case(
            "families of pipelines", name, zero_shot(labels), {"a.png": kit.picture, "m": make}, says=says
        )
    for kind in ("sd2-eps", "sd3", "flux", "pixart", "sana", "dit"):
        files = {"a.png": kit.picture, "m": copied(kind)}
        yield Case("families of pipelines", kind, zero_shot(pets), files, expect="answered")
    yield Case(
        "families of pipelines",
        "a template for classes",
        zero_shot(pets, "--template", "a {label}"),
        {"a.png": kit.picture, "m": copied("dit")},
        says="leave out --template",
    )


def _sizes(kit: Kit) -> Iterator[Case]:
    """Annotations of images of another size."""
    train = (
        "train",
        "objects",
        "--data-root",
        "data",
        "-o",
        "run",
        "--dry-run",
        "--set",
        "model.image_size=[32,32]",
        "--set",
        "crops.most=20",
        *CPU,
    )
    # Images have 32x32 pixels; objects lie all over the annotated size.
    for width, height in ((64, 64), (64, 48), (30, 22), (320, 240), (16, 16), (20, 20)):
        for form in ("points", "table", "coco", "voc"):
            for recorded in (True, False):
                if form in ("points", "table") and recorded:
                    continue
                files = _annotated(kit, form, (width, height), recorded)
                name = f"{form} of {width}x{height}, {'recorded' if recorded else 'not recorded'}"
                same = width == height
                if recorded and same:
                    yield Case(
                        "sizes of annotations",
                        name,
                        train,
                        files,
                        "answered",
                        check=_same("scaled", "crops of 9 images"),
                    )
                elif (width, height) == (30, 22) and not recorded:
                    continue  # nothing tells
                else:
                    says = "annotat" if recorded else "annotated=WIDTHxHEIGHT"
                    yield Case("sizes of annotations", name, train, files, says=says)
                if not recorded:
                    stated = (*train, "--set", f"data.annotated={width}x{height}")
                    check = _found(kit, width, height)
                    yield Case(
                        "sizes of annotations", f"{name}, stated", stated, files, "answered", check=check
                    )
    for value in ("480", "480x", "0x3", "x", "nan", "480x320x3", "-3x4"):
        files = _annotated(kit, "points", (32, 32), False)
        yield Case(
            "sizes of annotations",
            f"annotated={value}",
            (*train, "--set", f"data.annotated={value}"),
            files,
            says="480x320",
        )
    right = _annotated(kit, "points", (32, 32), False)
    yield Case(
        "sizes of annotations",
        "points of the images' size",
        train,
        right,
        "answered",
        check=_same("crops of 9 images"),
    )
    clevr = (
        "train",
        "clevr",
        "--data-root",
        "data",
        "-o",
        "run",
        "--dry-run",
        "--set",
        "model.image_size=[32,32]",
        "--set",
        "data.objects=1-5",
        "--limit",
        "18",
        *CPU,
    )
    for size, stated, expect in (((32, 32), "", "answered"), ((480, 320), "", "refused"), ((480, 320), "480x320", "answered"), ((20, 20), "", "refused"), ((20, 20), "20x20", "answered")):  # fmt: skip
        scenes = [
            {
                "image_filename": f"{n}.png",
                "image_index": n,
                "objects": [
                    {"pixel_coords": [x * size[0], y * size[1], 9.0]} for x, y in _places(n / 2)[n % 3 :: 3]
                ],
            }
            for n in range(18)
        ]
        files = {f"data/images/train/{n}.png": kit.picture for n in range(18)}
        files["data/scenes/CLEVR_train_scenes.json"] = json.dumps({"scenes": scenes})
        command = (*clevr, "--set", f"data.annotated={stated}") if stated else clevr
        says = "annotated=WIDTHxHEIGHT" if expect == "refused" else ""
        yield Case(
            "sizes of annotations",
            f"CLEVR of {size[0]}x{size[1]}, {stated or 'not'} stated",
            command,
            files,
            expect,
            says=says,
        )


def _places(number: float) -> list[tuple[float, float]]:
    """Places of objects all over an image, as shares of its sides."""
    return [((column + 0.5) / 4, (row + 0.3 + number / 20) / 3) for column in range(4) for row in range(3)]


def _annotated(kit: Kit, form: str, size: tuple[int, int], recorded: bool) -> dict[str, Content]:
    """Nine images of 32x32 pixels, annotated as if they had a size."""
    files: dict[str, Content] = {f"data/{n}.png": kit.picture for n in range(9)}
    files |= {"data/train.txt": "".join(f"{n}.png\n" for n in range(9))}
    width, height = size
    places = {n: [(x * width, y * height) for x, y in _places(n)] for n in range(9)}
    if form == "points":
        files |= {f"data/{n}.txt": "".join(f"{x} {y} thing\n" for x, y in some) for n, some in places.items()}
    elif form == "table":
        rows = "".join(f"{n}.png,{x},{y},thing\n" for n, some in places.items() for x, y in some)
        files["data/t.csv"] = f"file,x,y,label\n{rows}"
    elif form == "coco":
        shape = {"width": width, "height": height} if recorded else {}
        boxes = [(n, [x - 1, y - 1, 2, 2]) for n, some in places.items() for x, y in some]
        files["data/c.json"] = json.dumps({
            "images": [{"id": n, "file_name": f"{n}.png", **shape} for n in places], "categories": [{"id": 1, "name": "thing"}],
            "annotations": [{"id": i, "image_id": n, "category_id": 1, "bbox": box} for i, (n, box) in enumerate(boxes)],
        })  # fmt: skip
    else:
        said = f"<size><width>{width}</width><height>{height}</height></size>" if recorded else ""
        for n, some in places.items():
            boxes_ = "".join(
                f"<object><name>thing</name><bndbox><xmin>{x - 1}</xmin><ymin>{y - 1}</ymin><xmax>{x + 1}</xmax><ymax>{y + 1}</ymax></bndbox></object>"
                for x, y in some
            )
            files[f"data/{n}.xml"] = f"<annotation><filename>{n}.png</filename>{said}{boxes_}</annotation>"
    return files


def _found(kit: Kit, width: int, height: int) -> Check:
    """Whether the objects of an image are where they are, once a size is stated."""

    def check(outcome: Outcome) -> str | None:
        from igm_cli.plugins import registry

        data = registry.dataset("objects").load(
            "train", data_root=outcome.folder / "data", annotated=f"{width}x{height}"
        )
        found = sorted(tuple(round(c, 3) for c in thing["pixel_coords"]) for thing in data[3]["objects"])
        right = sorted((round(32 * x, 3), round(32 * y, 3)) for x, y in _places(3))
        return None if found == right else f"objects at {found[:3]}, not at {right[:3]}"

    return check


def _labelled(right: Mapping[str, Sequence[str]], **options: Any) -> Check:
    """Whether images have labels."""

    def check(outcome: Outcome) -> str | None:
        from igm_cli.plugins import registry

        data = registry.dataset("pictures").load("all", data_root=outcome.folder / "data", **options)
        found = dict(zip(data["file"][:], data["labels"][:], strict=True))
        return None if found == {file: list(labels) for file, labels in right.items()} else f"labels {found}"

    return check


def _tables(kit: Kit) -> Iterator[Case]:
    """Labels in every form that ``datasets`` reads them in, and some of their neighbours."""

    def parquets(columns: Mapping[str, Any], names: Sequence[str] = ()) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            import pyarrow
            from pyarrow import parquet

            table = pyarrow.table(dict(columns))
            if names:
                features = {"label": {"names": list(names), "_type": "ClassLabel"}}
                table = table.replace_schema_metadata(
                    {"huggingface": json.dumps({"info": {"features": features}})}
                )
            parquet.write_table(table, path)

        return make

    def case(
        name: str,
        names: Sequence[str],
        more: Mapping[str, Content],
        right: Mapping[str, Sequence[str]] | str,
        **options: Any,
    ) -> Case:
        files: dict[str, Content] = {f"data/{each}": kit.picture for each in names}
        files |= {f"data/{each}": content for each, content in more.items()}
        sets = [word for key, value in options.items() for word in ("--set", f"data.{key}={value}")]
        small = ("model.architecture=text-to-image", "model.image_size=[16,16]", "model.channels=[16,16]", "model.autoencoder_channels=[16,16]",
                 "model.groups=4", "model.head_dim=8", "model.text_dim=16", "model.latent_channels=2", "steps=2", "autoencoder_steps=1",
                 "reading_steps=0", "data.shares=1/0/0")  # fmt: skip
        sets += [word for each in small for word in ("--set", each)]
        command = (
            "train",
            "pictures",
            "--data-root",
            "data",
            "-o",
            "run",
            "--dry-run",
            "--concepts",
            "labels",
            *sets,
            *CPU,
        )
        if isinstance(right, str):
            return Case("tables of labels", name, command, files, says=right)
        known = sorted({label for labels in right.values() for label in labels})
        command = (*command, "--set", f"concepts.labels={','.join(known)}")
        return Case("tables of labels", name, command, files, "answered", check=_labelled(right, **options))

    two, pair = ["a.png", "b.png"], {"a.png": ["cat"], "b.png": ["polar bear"]}
    inner = {"x/a.png": ["cat"], "y/b.png": ["polar bear"]}
    lines = '{"file_name": "a.png", "label": "cat"}\n{"file_name": "b.png", "label": "polar bear"}\n'
    column = {"file_name": two, "label": ["cat", "polar bear"]}
    yield case("CSV at the root", two, {"metadata.csv": "file_name,label\na.png,cat\nb.png,polar bear\n"}, pair)
    yield case(
        "TSV at the root", two, {"metadata.tsv": "file_name\tlabel\na.png\tcat\nb.png\tpolar bear\n"}, pair
    )
    yield case("JSON Lines at the root", two, {"metadata.jsonl": lines}, pair)
    yield case("parquet at the root", two, {"metadata.parquet": parquets(column)}, pair)
    yield case(
        "CSV beside the images",
        [*inner],
        {
            "x/metadata.csv": "file_name,label\na.png,cat\n",
            "y/metadata.csv": "file_name,label\nb.png,polar bear\n",
        },
        inner,
    )
    beside = {
        "x/metadata.jsonl": lines.splitlines()[0] + "\n",
        "y/metadata.jsonl": lines.splitlines()[1] + "\n",
    }
    yield case("JSON Lines beside the images", [*inner], beside, inner)
    yield case("parquet beside the images", [*inner], {"x/metadata.parquet": parquets({"file_name": ["a.png"], "label": ["cat"]}),
               "y/metadata.parquet": parquets({"file_name": ["b.png"], "label": ["polar bear"]})}, inner)  # fmt: skip
    yield case(
        "two forms beside the images",
        [*inner],
        {
            "x/metadata.jsonl": beside["x/metadata.jsonl"],
            "y/metadata.csv": "file_name,label\nb.png,polar bear\n",
        },
        inner,
    )
    split = {"train/a.png": ["cat"], "train/b.png": ["polar bear"]}
    yield case(
        "in a folder of a split",
        [*split],
        {"train/metadata.csv": "file_name,label\na.png,cat\nb.png,polar bear\n"},
        split,
    )
    yield case(
        "beside the images of a split",
        ["train/x/a.png"],
        {"train/x/metadata.csv": "file_name,label\na.png,cat\n"},
        {"train/x/a.png": ["cat"]},
    )
    yield case(
        "of all splits at the root",
        [*split],
        {"metadata.csv": "file_name,label\ntrain/a.png,cat\ntrain/b.png,polar bear\n"},
        split,
    )
    yield case(
        "names of labels in the files, too",
        ["dog_1.png", "dog_2.png"],
        {"metadata.csv": "file_name,label\ndog_1.png,cat\ndog_2.png,polar bear\n"},
        {"dog_1.png": ["cat"], "dog_2.png": ["polar bear"]},
    )
    numbers = {"file_name": two, "label": [0, 1]}
    yield case(
        "numbers of classes that parquet names",
        two,
        {"metadata.parquet": parquets(numbers, ["cat", "polar bear"])},
        pair,
    )
    yield case(
        "numbers of classes with a list of names",
        two,
        {"metadata.csv": "file_name,label\na.png,0\nb.png,1\n", "classes.txt": "cat\npolar bear\n"},
        pair,
    )
    yield case(
        "numbers in JSON with a list of names",
        two,
        {
            "metadata.jsonl": lines.replace('"cat"', "0").replace('"polar bear"', "1"),
            "classes.txt": "cat\npolar bear\n",
        },
        pair,
    )
    yield case(
        "lists of numbers",
        two,
        {
            "metadata.jsonl": '{"file_name": "a.png", "labels": [0, 1]}\n{"file_name": "b.png", "labels": [1]}\n',
            "classes.txt": "cat\npolar bear\n",
        },
        {"a.png": ["cat", "polar bear"], "b.png": ["polar bear"]},
    )
    yield case(
        "labels with commas",
        two,
        {"metadata.csv": 'file_name,labels\na.png,"cat, polar bear"\nb.png,"polar bear, dog"\n'},
        {"a.png": ["cat", "polar bear"], "b.png": ["polar bear", "dog"]},
    )
    yield case(
        "labels with and",
        two,
        {"metadata.csv": "file_name,labels\na.png,cat and polar bear\nb.png,dog\n"},
        {"a.png": ["cat", "polar bear"], "b.png": ["dog"]},
    )
    yield case(
        "labels that are named",
        two,
        {"metadata.csv": "file_name,labels\na.png,cat polar bear\nb.png,polar bear\n"},
        "may be one label or several",
        labels="cat,polar bear",
    )
    synsets = "n02123045 tabby, tabby cat\nn02134084 ice bear, polar bear\n"
    birds = {"n02123045/a.png": ["tabby"], "n02134084/b.png": ["ice bear"]}
    yield case("synsets with names", [*birds], {"LOC_synset_mapping.txt": synsets}, birds)
    yield case(
        "synsets with names, of words.txt", [*birds], {"words.txt": synsets.replace(" ", "\t", 1)}, birds
    )
    for name, names, more, says in (
        ("synsets without names", [*birds], {}, "n02123045"),
        ("a synset of no name", [*birds], {"words.txt": "n02123045 tabby\n"}, "n02134084"),
        ("numbers without names", two, {"metadata.csv": "file_name,label\na.png,0\nb.png,1\n"}, "number 0"),
        ("numbers without names in parquet", two, {"metadata.parquet": parquets(numbers)}, "number 0"),
        ("a number beyond the names", two, {"metadata.csv": "file_name,label\na.png,0\nb.png,7\n", "classes.txt": "cat\ndog\n"}, "number 7"),
        ("words without commas", two, {"metadata.csv": "file_name,labels\na.png,polar bear\nb.png,cat\n"}, "polar bear"),
        ("two tables", two, {"metadata.csv": "file_name,label\na.png,cat\n", "metadata.jsonl": lines}, "metadata.csv and metadata.jsonl"),
        ("a table at the root and one beside", ["x/a.png"], {"metadata.csv": "file_name,label\nx/a.png,cat\n", "x/metadata.csv": "file_name,label\na.png,dog\n"}, "both hold labels"),
        ("JSON that is not read", ["cat_1.png"], {"labels.json": '{"cat_1.png": "dog"}'}, "labels.json"),
        ("an Excel file", ["cat_1.png"], {"labels.xlsx": "PK"}, "labels.xlsx"),
        ("JSON Lines of another name", ["cat_1.png"], {"train.jsonl": '{"file_name": "cat_1.png", "label": "dog"}\n'}, "train.jsonl"),
        ("parquet of another name", ["cat_1.png"], {"train-00000.parquet": "PAR1"}, "train-00000.parquet"),
        ("a table that does not parse", ["cat_1.png"], {"metadata.jsonl": "{"}, "not JSON"),
        ("a parquet that is none", ["cat_1.png"], {"metadata.parquet": "x"}, "metadata.parquet"),
        ("a table without files", ["cat_1.png"], {"metadata.csv": "name,label\ncat_1.png,dog\n"}, "file"),
        ("a table without labels", ["cat_1.png"], {"metadata.jsonl": '{"file_name": "cat_1.png"}\n'}, "no labels"),
        ("labels that are numbers with points", two, {"metadata.jsonl": '{"file_name": "a.png", "label": 0.5}\n'}, "0.5"),
        ("labels that are truth values", two, {"metadata.jsonl": '{"file_name": "a.png", "label": true}\n'}, "True"),
        ("labels below 0", two, {"metadata.jsonl": '{"file_name": "a.png", "label": -1}\n'}, "-1"),
    ):  # fmt: skip
        yield case(name, names, more, says)
    own = '{"schema": "igm.zero-shot/1", "image": "cat_1.png"}\n'
    yield case(
        "results of igm's own beside",
        ["cat_1.png", "dog_1.png"],
        {"results.jsonl": own},
        {"cat_1.png": ["cat"], "dog_1.png": ["dog"]},
    )


def _vectors(kit: Kit) -> Iterator[Case]:
    """Codewords whose binding is in doubt."""
    import numpy as np
    import torch
    from safetensors.torch import save

    draw = torch.Generator().manual_seed(0)
    signs = [torch.randint(0, 2, (4, 256), generator=draw).float() * 2 - 1 for _ in range(2)]
    normal = [torch.randn(4, 256, generator=draw) / 16 for _ in range(2)]
    phases = [torch.polar(torch.ones(4, 256), 6.28 * torch.rand(4, 256, generator=draw)) for _ in range(2)]

    def bound(kind: str, books: Sequence[Any]) -> Any:
        if kind == "hrr":
            return torch.fft.irfft(torch.fft.rfft(books[0][1]) * torch.fft.rfft(books[1][2]), n=256)
        return books[0][1] * books[1][2]

    def case(
        name: str,
        books: Sequence[Any],
        vector: Any,
        binding: str = "",
        *words: str,
        right: bool = True,
        says: str = "",
    ) -> Case:
        content = save(
            {f"factor_{k}": book.contiguous() for k, book in enumerate(books)},
            {"binding": binding} if binding else None,
        )

        def write(path: Path) -> None:
            np.save(path, vector.numpy())

        def check(outcome: Outcome) -> str | None:
            found = [item["index"] for item in outcome.json()[0]["items"]]
            return None if found == [1, 2] else f"codewords {found}, not 1 and 2"

        command = ("decompose", "v.npy", "--codebooks", "b.safetensors", "--json", *words, *CPU)
        files: dict[str, Content] = {"v.npy": write, "b.safetensors": content}
        return Case("vectors", name, command, files, "answered" if right else "refused", check=check, says=says)

    bits = [(book + 1) / 2 for book in signs]
    guessed = "does not name a binding"
    yield case("±1 by products", signs, bound("map", signs), "map")
    yield case("±1, no binding named", signs, bound("map", signs), says=f"{guessed}.*map")
    yield case("normal, no binding named", normal, bound("hrr", normal), says=f"{guessed}.*hrr")
    yield case("phases, no binding named", phases, bound("fhrr", phases), says=f"{guessed}.*fhrr")
    yield case("normal by convolution", normal, bound("hrr", normal), "hrr")
    yield case("whole numbers ±1", [book.to(torch.int8) for book in signs], bound("map", signs), says=guessed)
    yield case("0 and 1, no binding named", bits, bound("map", signs), right=False, says="0 and 1")
    yield case("0 and 1 by products", bits, bound("map", signs), "map", right=False, says="0 and 1")
    yield case(
        "0 and 1, asked to be products",
        bits,
        bound("map", signs),
        "",
        "--binding",
        "map",
        right=False,
        says="0 and 1",
    )
    yield case(
        "0 and 1 as whole numbers",
        [book.to(torch.uint8) for book in bits],
        bound("map", signs),
        right=False,
        says="0 and 1",
    )
    yield case(
        "one book of 0 and 1", [signs[0], bits[1]], bound("map", signs), right=False, says="binding|0 and 1"
    )
    yield case(
        "±0.06, no binding named",
        [book / 16 for book in signs],
        bound("map", signs),
        right=False,
        says="name the binding, map",
    )
    yield case(
        "±0.06, asked to be products",
        [book / 16 for book in signs],
        bound("map", signs),
        "",
        "--binding",
        "map",
    )
    yield case(
        "normal of norm 16, no binding named",
        [16 * book for book in normal],
        bound("hrr", normal),
        right=False,
        says="binding",
    )
    yield case(
        "complex of other moduli, no binding named",
        [2 * book for book in phases],
        bound("fhrr", phases),
        right=False,
        says="binding",
    )
    yield case("an unknown binding", signs, bound("map", signs), "xor", right=False, says="xor")
    many = [torch.randint(0, 2, (2, 64), generator=draw).float() * 2 - 1 for _ in range(40)]
    yield case("40 codebooks of two", many, many[0][1], "map", right=False, says="codebooks")
