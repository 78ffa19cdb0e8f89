"""Doors to code, files and hosts: what is found on disk runs nothing, reads nothing elsewhere and asks nobody."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from faults.case import Case, Content
from faults.guard import RAN, SECRET
from faults.kit import CPU, Kit
from faults.options import copy, edited, train, with_data

PAYLOAD = f"open({RAN!r}, 'w').close()\n\n\nclass P:\n    name = 'payload'\n"
"""A module that leaves a file behind when it is imported."""

NAMED = "payload:P"

DOORS: Mapping[str, str] = {
    "checkpoint": "igm.json, config.json and scheduler_config.json of a checkpoint",
    "weights": "weights, states of trainings and vectors, which may be pickles",
    "pipeline": "the folder of a text-to-image pipeline",
    "preset": "a preset of a training",
    "results": "a results file",
    "dataset": "scenes, annotations and tables of labels",
    "image": "an image",
    "name": "a name that a person mistyped",
    "address": "an address that nobody typed, or that is none of http and https",
}
"""Every door, and what comes in by it; SECURITY.md speaks of each."""


class Planted:
    """Pickles to a call that leaves a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (RAN, "w")


def cases(kit: Kit) -> Iterator[Case]:
    """Yields the cases."""
    yield from _checkpoints(kit)
    yield from _pipelines(kit)
    yield from _weights(kit)
    yield from _presets(kit)
    yield from _results(kit)
    yield from _datasets(kit)
    yield from _images(kit)
    yield from _names(kit)
    yield from _addresses(kit)


def _case(
    kit: Kit, door: str, name: str, command: tuple[str, ...], files: Mapping[str, Content], **more: Any
) -> Case:
    assert door in DOORS
    planted: dict[str, Content] = {"a.png": kit.picture, "payload.py": PAYLOAD, **files}
    return Case(f"door: {door}", name, command, planted, more.pop("expect", "refused"), guarded=True, **more)


def _checkpoints(kit: Kit) -> Iterator[Case]:
    invert = ("invert", "a.png", "--model", "m", "--json", *CPU)
    for file, keys, value in (
        ("igm.json", ["concepts"], NAMED),
        ("igm.json", ["concepts"], "payload.P"),
        ("igm.json", ["concepts"], "payload"),
        ("igm.json", ["concepts"], "igm_cli.plugins.positions:Positions"),
        ("igm.json", ["concepts"], "os:system"),
        ("igm.json", ["concept_options"], {"parser": NAMED}),
        ("igm.json", ["space", "kind"], NAMED),
        ("igm.json", ["space", "names"], {"kind": NAMED}),
        ("igm.json", ["composition"], NAMED),
        ("igm.json", ["inference", "method"], NAMED),
        ("config.json", ["architecture"], NAMED),
        ("config.json", ["auto_map"], {"AutoModel": "payload.P"}),
        ("config.json", ["_class_name"], "payload.P"),
    ):
        edit = edited(kit, file, keys, value)
        yield _case(kit, "checkpoint", f"{file} {'.'.join(keys)} = {str(value)[:30]}", invert, {"m": edit})
    fine = {
        "scheduler_config.json _class_name": ("scheduler_config.json", ["_class_name"], "payload.P"),
        "igm.json info.dataset": ("igm.json", ["info"], {"dataset": NAMED, "with": []}),
    }
    for name, (file, keys, value) in fine.items():
        yield _case(kit, "checkpoint", name, invert, {"m": edited(kit, file, keys, value)}, expect="either")
    companions = edited(kit, "igm.json", ["info"], {"with": [f"../{SECRET}"]})
    yield _case(kit, "checkpoint", "igm.json info.with", invert, {"m": companions, f"{SECRET}/igm.json": "{}"})

    def linked(path: Path) -> None:
        copy(kit.positions, path)
        (path / "payload.py").write_text(PAYLOAD)
        (path / "__init__.py").write_text(PAYLOAD)
        (path / "modeling.py").write_text(PAYLOAD)

    yield _case(kit, "checkpoint", "modules beside the weights", invert, {"m": linked}, expect="answered")
    for command in (("train", "objects", "--init", "m"), ("train", "objects", "--with", "m")):
        words = (*command, "--data-root", "data", "-o", "run", "--set", "steps=1", *CPU)
        files = {**with_data(kit), "m": edited(kit, "igm.json", ["concepts"], NAMED)}
        expect = "either" if "--init" in command else "refused"
        yield _case(kit, "checkpoint", " ".join(command), words, files, expect=expect)


def _pipelines(kit: Kit) -> Iterator[Case]:
    zero_shot = (
        "zero-shot",
        "a.png",
        "--labels",
        "cat,dog",
        "--model",
        "m",
        "--draws",
        "2",
        "--max-draws",
        "2",
        *CPU,
    )

    def edited(
        file: str, change: Callable[[dict[str, Any]], object], more: Mapping[str, str] | None = None
    ) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            copy(kit.pipeline, path)
            data = json.loads((path / file).read_text()) if (path / file).is_file() else {}
            change(data)
            (path / file).write_text(json.dumps(data))
            for name, text in (more or {}).items():
                (path / name).write_text(text)

        return make

    def put(**values: Any) -> Callable[[dict[str, Any]], object]:
        return lambda data: data.update(values)

    planted = {
        "pipeline.py": PAYLOAD,
        "unet/payload.py": PAYLOAD,
        "unet/modeling.py": PAYLOAD,
        "payload.py": PAYLOAD,
    }
    index = "model_index.json"
    for name, file, change in (
        ("_class_name of a module", index, put(_class_name="payload.P")),
        ("_class_name as a list", index, put(_class_name=["pipeline", "P"])),
        ("a unet of a module", index, put(unet=["payload", "P"])),
        ("a unet of a file", index, put(unet=["payload", "UNet2DConditionModel"])),
        ("a vae of the standard library", index, put(vae=["os", "system"])),
        ("a scheduler of a module", index, put(scheduler=["payload", "DDIMScheduler"])),
        ("a scheduler that is none", index, put(scheduler=["diffusers", "AutoencoderKL"])),
        ("a scheduler by a dotted name", index, put(scheduler=["diffusers", "utils.Scheduler"])),
        ("a tokenizer of a module", index, put(tokenizer=["payload", "CLIPTokenizer"])),
        ("a text encoder of a module", index, put(text_encoder=["payload.P", "CLIPTextModel"])),
        ("auto_map of the unet", "unet/config.json", put(auto_map={"AutoModel": "payload.P"})),
        ("auto_map of the text encoder", "text_encoder/config.json", put(auto_map={"AutoModel": "payload.P"})),
        ("auto_map of the tokenizer", "tokenizer/tokenizer_config.json", put(auto_map={"AutoTokenizer": ["payload.P", None]})),
        ("quantization of the text encoder", "text_encoder/config.json", put(quantization_config={"quant_method": "payload"})),
        ("quantization of the unet", "unet/config.json", put(quantization_config={"quant_method": "payload"})),
        ("attention of the hub", "text_encoder/config.json", put(_attn_implementation="payload/kernel")),
        ("attention of the hub, by its other name", "text_encoder/config.json", put(attn_implementation="payload/kernel")),
        ("shards above", "unet/diffusion_pytorch_model.safetensors.index.json", put(weight_map={"conv_in.weight": f"../../{SECRET}.safetensors"})),
        ("shards at an absolute place", "unet/diffusion_pytorch_model.safetensors.index.json", put(weight_map={"conv_in.weight": f"/{SECRET}.safetensors"})),
        ("shards above, of the text encoder", "text_encoder/model.safetensors.index.json", put(weight_map={"x": f"..\\{SECRET}.safetensors"})),
        ("shards that are no text", "unet/diffusion_pytorch_model.safetensors.index.json", put(weight_map={"x": 3})),
        ("an igm.json of a module", "igm.json", put(space={"kind": NAMED})),
    ):  # fmt: skip
        files = {"m": edited(file, change, planted), f"{SECRET}.safetensors": b"x"}
        yield _case(kit, "pipeline", name, zero_shot, files)
    for name, file, change in (
        ("custom pipelines", index, put(custom_pipelines="pipeline.py", trust_remote_code=True)),
        ("a safety checker of a module", index, put(safety_checker=["payload", "P"])),
        ("a name of the hub", "unet/config.json", put(_name_or_path="payload/unet")),
        ("a name of the hub, of the text encoder", "text_encoder/config.json", put(_name_or_path="payload/text")),
        ("a name of the hub, of the tokenizer", "tokenizer/tokenizer_config.json", put(name_or_path="payload/tokenizer")),
        ("a class of the tokenizer", "tokenizer/tokenizer_config.json", put(tokenizer_class="PayloadTokenizer")),
        ("a chat template", "tokenizer/tokenizer_config.json", put(chat_template="{{ cycler.__init__.__globals__.os.system('touch ran') }}")),
        ("an igm.json of a parser", "igm.json", put(space={"kind": "text", "labels": ["cat", "dog"]}, concepts=NAMED)),
    ):  # fmt: skip
        yield _case(kit, "pipeline", name, zero_shot, {"m": edited(file, change, planted)}, expect="either")

    def of_flux(file: str, **values: Any) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            copy(kit.family("flux"), path)
            data = json.loads((path / file).read_text()) if (path / file).is_file() else {}
            (path / file).write_text(json.dumps(data | values))

        return make

    t5, files_of_t5 = "text_encoder_2/config.json", "text_encoder_2/model.safetensors.index.json"
    for name, make in (
        ("auto_map of the T5", of_flux(t5, auto_map={"AutoModel": "payload.P"})),
        (
            "auto_map of the transformer",
            of_flux("transformer/config.json", auto_map={"AutoModel": "payload.P"}),
        ),
        ("quantization of the T5", of_flux(t5, quantization_config={"quant_method": "payload"})),
        ("shards above, of the T5", of_flux(files_of_t5, weight_map={"x": f"../../{SECRET}.safetensors"})),
        ("a transformer of a module", of_flux(index, transformer=["payload", "FluxTransformer2DModel"])),
    ):
        files = {"m": make, f"{SECRET}.safetensors": b"x"}
        yield _case(kit, "pipeline", name, (*zero_shot, "--size", "16"), files)

    def pickled(path: Path) -> None:
        copy(kit.pipeline, path)
        for file in (path / "unet").glob("*.safetensors"):
            file.unlink()
        (path / "unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Planted()))

    yield _case(kit, "pipeline", "a unet that is a pickle", zero_shot, {"m": pickled})
    for suffix in (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".safetensors"):
        command = (*zero_shot[:5], f"m{suffix}", *CPU)
        yield _case(
            kit,
            "pipeline",
            f"a single {suffix} that is a pickle",
            command,
            {f"m{suffix}": pickle.dumps(Planted())},
        )


def _weights(kit: Kit) -> Iterator[Case]:
    import numpy as np

    planted = pickle.dumps(Planted())
    array = io.BytesIO()
    np.save(array, np.array([Planted()], dtype=object), allow_pickle=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("vectors.npy", array.getvalue())
    torch_file = io.BytesIO()
    with zipfile.ZipFile(torch_file, "w") as archive:
        archive.writestr("archive/data.pkl", planted)
        archive.writestr("archive/version", "3\n")

    def weights(content: bytes) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            copy(kit.positions, path)
            (path / "model.safetensors").write_bytes(content)

        return make

    for name, content in (("a pickle", planted), ("a file of torch", torch_file.getvalue())):
        invert = ("invert", "a.png", "--model", "m", *CPU)
        yield _case(kit, "weights", f"model.safetensors is {name}", invert, {"m": weights(content)})
        books = ("decompose", "v.npy", "--codebooks", "b.safetensors", *CPU)
        yield _case(
            kit,
            "weights",
            f"codebooks are {name}",
            books,
            {"v.npy": array.getvalue(), "b.safetensors": content},
        )
    for name, content in (
        ("v.npy", array.getvalue()),
        ("v.npy", planted),
        ("v.npz", packed.getvalue()),
        ("v.npz", planted),
    ):
        vectors = ("decompose", name, "--codebooks", "b.safetensors", *CPU)
        kind = "an array of objects" if content != planted else "a pickle"
        yield _case(
            kit, "weights", f"{name} is {kind}", vectors, {name: content, "b.safetensors": kit.codebooks}
        )

    def state(content: bytes) -> Callable[[Path], None]:
        def make(path: Path) -> None:
            path.mkdir()
            for name in ("state.pt", "state.safetensors", "optimizer.bin", "random_states_0.pkl"):
                (path / name).write_bytes(content)

        return make

    for name, content in (("a pickle", planted), ("a file of torch", torch_file.getvalue())):
        files = {**with_data(kit), "run": state(content)}
        yield _case(kit, "weights", f"the state of a training is {name}", train(), files, expect="either")


def _presets(kit: Kit) -> Iterator[Case]:
    for name, text in (
        ("parser", f'parser = "{NAMED}"\n'),
        ("parser without an attribute", 'parser = "payload"\n'),
        ("extends", f'extends = "{NAMED}"\n'),
        ("architecture", f'[model]\narchitecture = "{NAMED}"\n'),
        ("composition", f'[model]\ncomposition = "{NAMED}"\n'),
        ("concepts", f'[concepts]\nparser = "{NAMED}"\n'),
        ("dataset", f'dataset = "{NAMED}"\n'),
        ("an option of the data", f'[[data]]\n[data.options]\nformat = "{NAMED}"\n'),
        ("compile", f'[train]\ncompile = "{NAMED}"\n'),
        ("schedule", f'[schedule]\nbeta_schedule = "{NAMED}"\n'),
    ):
        yield _case(kit, "preset", name, train("--preset", "p.toml"), {**with_data(kit), "p.toml": text})


def _results(kit: Kit) -> Iterator[Case]:
    items = [{"x": 0.4, "y": 0.4, "x_px": 12.0, "y_px": 12.0, "confidence": 0.9}]
    line = {"schema": "igm.invert/1", "image": f"{SECRET}/b.png", "size": [32, 32], "sha256": "0" * 64, "concepts": NAMED,
            "model": NAMED, "items": items}  # fmt: skip
    files = {"r.jsonl": json.dumps(line) + "\n", f"{SECRET}/b.png": kit.picture}
    model = ("--model", str(kit.positions))
    draw = ("generate", "--like", "r.jsonl", "--steps", "2", *model, *CPU)
    yield _case(kit, "results", "generate --like", draw, files, expect="either")
    yield _case(
        kit,
        "results",
        "invert --output",
        kit.invert("a.png", "-o", "r.jsonl"),
        files,
        expect="either",
        may_change=("*",),
    )
    yield _case(kit, "results", "an input", kit.invert("r.jsonl"), files)


def _datasets(kit: Kit) -> Iterator[Case]:
    secret: dict[str, Content] = {f"{SECRET}.png": kit.picture, f"{SECRET}.txt": "word\n"}
    outside = [
        f"../../{SECRET}.png",
        f"../{SECRET}.png",
        f"..\\..\\{SECRET}.png",
        f"file:{SECRET}.png",
        f"http://127.0.0.1:9/{SECRET}",
    ]
    train = ("train", "objects", "--data-root", "data", "-o", "run", "--dry-run", *CPU)
    for number, name in enumerate(outside):
        coco = {"images": [{"id": 1, "file_name": name, "width": 32, "height": 32}], "categories": [{"id": 1, "name": "a"}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9]}]}  # fmt: skip
        voc = f"<annotation><filename>{name}</filename><object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
        me = {"imagePath": name, "shapes": [{"label": "a", "shape_type": "point", "points": [[3, 3]]}]}
        for kind, file, text in (
            ("COCO", "data/a.json", json.dumps(coco)), ("VOC", "data/q.xml", voc), ("LabelMe", "data/q.json", json.dumps(me)),
            ("a table", "data/t.csv", f"file,x,y\n{name},3,3\n"), ("a list", "data/train.txt", f"{name}\n"),
        ):  # fmt: skip
            files = {**secret, "data/1.png": kit.picture, file: text}
            yield _case(kit, "dataset", f"{kind} names {number}", train, files)
        scenes = {"scenes": [{"image_filename": name, "image_index": 0, "objects": []}]}
        files = {
            **secret,
            "data/scenes/CLEVR_train_scenes.json": json.dumps(scenes),
            "data/images/train/0.png": kit.picture,
        }
        clevr = ("train", "clevr", "--data-root", "data", "-o", "run", "--dry-run", *CPU)
        yield _case(kit, "dataset", f"CLEVR names {number}", clevr, files)
        pictures = (
            "train",
            "pictures",
            "--data-root",
            "data",
            "-o",
            "run",
            "--dry-run",
            "--preset",
            "p.toml",
            *CPU,
        )
        for kind, file, text in (
            ("metadata.csv", "data/metadata.csv", f"file_name,label\n{name},cat\n"),
            (
                "metadata.jsonl",
                "data/metadata.jsonl",
                json.dumps({"file_name": name, "labels": ["cat", "dog"]}) + "\n",
            ),
        ):
            files = {
                **secret,
                "data/cat_1.png": kit.picture,
                file: text,
                "p.toml": '[model]\narchitecture = "text-to-image"\n',
            }
            yield _case(kit, "dataset", f"{kind} names {number}", pictures, files)
    entity = f'<!DOCTYPE a [<!ENTITY x SYSTEM "file:{SECRET}.txt">]><annotation><filename>&x;</filename></annotation>'
    bombs = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><annotation>&b;</annotation>'
    for name, text in (("an outer entity", entity), ("entities of entities", bombs)):
        files = {**secret, "data/1.png": kit.picture, "data/1.xml": text}
        yield _case(kit, "dataset", f"VOC has {name}", train, files)
    yaml = "names: !!python/object/apply:builtins.open [ran, w]\n"
    files = {**with_data(kit), "data/data.yaml": yaml}
    files.pop("data/classes.txt")
    yield _case(kit, "dataset", "YOLO's data.yaml names an object of Python", train, files, expect="either")
    scripts = {
        "data/data.py": PAYLOAD,
        "data/dataset_infos.json": "{}",
        "data/loading_script.py": PAYLOAD,
        "data/__init__.py": PAYLOAD,
    }
    yield _case(
        kit,
        "dataset",
        "a loading script beside the images",
        train,
        {**with_data(kit), **scripts},
        expect="either",
    )


def _images(kit: Kit) -> Iterator[Case]:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(ran) (w) file closefile\nshowpage\n%%EOF\n"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{SECRET}.png"/></svg>'.encode()
    for name, content in (
        ("EPS", eps), ("SVG", svg), ("PDF", b"%PDF-1.4\n1 0 obj\n"), ("a pickle", pickle.dumps(Planted())), ("Python", PAYLOAD.encode()),
        ("HTML", b"<img src='http://127.0.0.1:9/'>"), ("FPX", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600),
    ):  # fmt: skip
        yield _case(kit, "image", f"a .png that is {name}", kit.invert("b.png"), {"b.png": content})


def _names(kit: Kit) -> Iterator[Case]:
    files, labels = with_data(kit), ("--labels", "cat,dog")
    mistyped = ("run/clevr-pos", "owner/name", "./owner/name", "runs/mine/", "models/sd.safetensors", "~/nosuch/model", "/nosuch/model",
                "http://127.0.0.1:9/model", "https://huggingface.co/owner/name", "owner/name@main", "hf:", "hf:name", "hf:../../x", "hf://owner/name")  # fmt: skip
    for name in mistyped:
        for command in (("invert", "a.png", "--model", name), ("zero-shot", "a.png", *labels, "--model", name)):
            yield _case(kit, "name", f"{command[0]} {name}", (*command, *CPU), files)
    for command in (
        ("generate", "pos(0.3,0.5)", "--model", "owner/name"),
        ("estimate-k", "a.png", "--model", "owner/name"),
        ("train", "objects", "--data-root", "data", "--init", "owner/name"),
        ("train", "objects", "--data-root", "data", "--with", "owner/name"),
        ("train", "owner/name"),
        ("train", "objects", "--data-root", "owner/name"),
        ("train", "objects", "--data-root", "http://127.0.0.1:9/data"),
        ("benchmark", "objects", "--model", "owner/name"),
        ("benchmark", "owner/name"),
        ("zero-shot", "a.png", "--labels-file", "http://127.0.0.1:9/labels"),
        ("invert", "a.png", "--concepts", "payload"),
        ("benchmark", "attributes", "--set", "resnet=owner/name", "--methods", "resnet", "--limit", "1"),
    ):
        yield _case(kit, "name", " ".join(command)[:60], (*command, *CPU), files)


def _addresses(kit: Kit) -> Iterator[Case]:
    secret: dict[str, Content] = {f"{SECRET}.png": kit.picture}
    for name in ("file:///etc/hostname", "file:/etc/hostname", "ftp://127.0.0.1:9/a.png", "//127.0.0.1:9/a.png", "s3://b/a.png",
                 "http:/127.0.0.1:9/a.png", "data:image/png;base64,iVBORw0KGgo=", "http:127.0.0.1:9", "hf://a/b/a.png"):  # fmt: skip
        yield _case(kit, "address", f"invert {name}", kit.invert(name), secret)
    inside = {"http:/127.0.0.1:9/a.png": kit.picture}
    yield _case(kit, "address", "a folder that is called http:", kit.invert("http:"), inside, expect="answered")
    fetched = "http://127.0.0.1:9/a.png"
    items = [{"x": 0.4, "y": 0.4, "x_px": 12.0, "y_px": 12.0, "confidence": 0.9}]
    line = {
        "schema": "igm.invert/1",
        "image": fetched,
        "size": [32, 32],
        "sha256": "0" * 64,
        "concepts": "pos",
        "model": "m",
        "items": items,
    }
    results = {"r.jsonl": json.dumps(line) + "\n"}
    draw = ("generate", "--like", "r.jsonl", "--steps", "2", "--model", str(kit.positions), *CPU)
    yield _case(kit, "address", "an image of generate --like", draw, results, expect="either")
    keep = kit.invert("a.png", "-o", "r.jsonl", "--overlay", "found", "--csv", "t.csv")
    yield _case(kit, "address", "an image of --output", keep, results, expect="either", may_change=("*",))
    for option in ("--labels-file", "--templates-file"):
        words = ("zero-shot", "a.png", option, fetched, *CPU)
        yield _case(kit, "address", option, words, {})
    yield _case(kit, "address", "--codebooks", ("decompose", "a.png", "--codebooks", fetched, *CPU), {})
    yield _case(kit, "address", "generate --like", ("generate", "--like", fetched, *CPU), {})
    yield _case(kit, "address", "bound vectors", ("decompose", fetched, "--codebooks", "b.safetensors", *CPU),
                {"b.safetensors": kit.codebooks})  # fmt: skip
    yield _case(
        kit,
        "address",
        "evaluate",
        ("evaluate", "--model", str(kit.positions), "--dataset", "objects", "--data-root", fetched, *CPU),
        {},
    )
    for name, content in (
        ("HLS", f"#EXTM3U\n#EXTINF:1,\n{fetched}\n#EXTINF:1,\n{SECRET}.png\n#EXT-X-ENDLIST\n"),
        ("a concat script", f"ffconcat version 1.0\nfile {SECRET}.png\nfile {fetched}\n"),
        ("SDP", "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n"),
        (
            "DASH",
            f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{fetched}</BaseURL></MPD>',
        ),
        ("an address", f"{fetched}\n"),
    ):
        video = {**secret, "clip.mp4": content}
        yield _case(kit, "address", f"a video that is {name}", kit.invert("clip.mp4", "--every", "1"), video)
