"""Damaged images, fields and arrays in data sets and files of vectors, as train, benchmark and invert read them."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from faults.case import Case, Content
from faults.images import EPS, GHOSTSCRIPT, _executable
from faults.kit import CPU, Kit
from faults.raw_images import COLOURED, GREY, png, saved, tiff

DRY = ("--dry-run", "--batch-size", "2", "-o", "run", *CPU)  # which tries some steps, too
PICTURE = saved(COLOURED, "PNG")
DAMAGED: dict[str, bytes] = {
    "cut": PICTURE[: len(PICTURE) // 2],
    "empty": b"",
    "text": b"no image",
    "EPS": EPS,
    "a bomb": png(b"", (50_000, 50_000), 8, 2),
    "NaN": tiff(np.full((32, 32), np.nan, "<f4").tobytes(), bits=32, kind=3),
    "values of no range": tiff(np.full((32, 32), 7, "<f4").tobytes(), bits=32, kind=3),
    "one pixel": saved(GREY[:1, :1], "PNG"),
}


def cases(kit: Kit) -> Iterator[Case]:
    """Yields the cases."""
    yield from _damaged_images(kit)
    yield from _scenes(kit)
    yield from _ranges(kit)
    yield from _vectors(kit)


def _scene(number: int, **changed: Any) -> dict[str, Any]:
    thing = {
        "shape": "cube", "size": "small", "color": "red", "material": "metal", "rotation": 1.0, "3d_coords": [0, 0, 1],
        "pixel_coords": [16, 16, 9],
    }  # fmt: skip
    return {
        "image_filename": f"{number}.png",
        "image_index": number,
        "split": "train",
        "objects": [thing],
        **changed,
    }


def _clevr(scenes: Any, **images: Any) -> dict[str, Content]:
    text = scenes if isinstance(scenes, str | bytes) else json.dumps({"scenes": scenes})
    folders = {f"d/{part}/{name}": data for part in ("images/train", "images/val")
               for name, data in {f"{n}.png": PICTURE for n in range(3)}.items()}  # fmt: skip
    files = {f"d/scenes/CLEVR_{split}_scenes.json": text for split in ("train", "val")}
    return {**folders, **files, **{f"d/images/train/{name}": data for name, data in images.items()}}


def _train(dataset: str, *words: str) -> tuple[str, ...]:
    how = {
        "clevr": ("--set", "data.objects=1-9"),
        "pictures": ("--set", "concepts.labels=cat,dog", "--set", "data.shares=1/0/0"),
        "celeba": ("--set", "concepts.factors=Smiling"),
    }
    return ("train", dataset, "--data-root", "d", *how.get(dataset, ()), *DRY, *words)


def _damaged_images(kit: Kit) -> Iterator[Case]:
    witness: dict[str, Content] = {"gs": _executable(GHOSTSCRIPT), "witness": b"nothing ran"}
    env = {"PATH": f".:{os.environ['PATH']}"}
    boxes = "0 0.5 0.5 0.1 0.1\n"
    sets: dict[str, tuple[dict[str, Content], str]] = {
        "pictures": ({f"d/cat_{n}.png": PICTURE for n in range(3)}, "d/cat_1.png"),
        "clevr": (_clevr([_scene(n) for n in range(3)]), "d/images/train/1.png"),
        "objects": (
            {f"d/train/{n}.png": PICTURE for n in range(3)} | {f"d/train/{n}.txt": boxes for n in range(3)},
            "d/train/1.png",
        ),
        "celeba": (
            {f"d/img_align_celeba/{n}.png": PICTURE for n in range(9)}
            | {
                "d/list_attr_celeba.txt": "9\nMale Smiling Eyeglasses\n"
                + "".join(f"{n}.png -1 -1 1\n" for n in range(9))
            },
            "d/img_align_celeba/1.png",
        ),
    }
    for dataset, (files, spoilt) in sets.items():
        shown = Path(spoilt).name
        for name, data in DAMAGED.items():
            lenient = dataset == "objects"  # it says so, and leaves out what cannot be opened
            yield Case("damaged image, train", f"{dataset}, {name}", _train(dataset), {**files, spoilt: data, **witness},
                       "either" if lenient else "refused", codes=(3,), says=shown, env=env)  # fmt: skip
        yield Case("damaged image, train", f"{dataset}, none", _train(dataset), files, "either", codes=(3,))
        missing = {name: data for name, data in files.items() if name != spoilt}
        if dataset in ("clevr", "celeba"):
            yield Case(
                "damaged image, train", f"{dataset}, missing", _train(dataset), missing, codes=(3,), says=shown
            )
    for name in ("cut", "text", "EPS"):
        files = _clevr([_scene(n) for n in range(3)]) | {
            f"d/images/val/{n}.png": DAMAGED[name] for n in range(3)
        }
        command = ("benchmark", "object-discovery", "--data-root", "d", "--splits", "folder", "--methods", "igm", "-o", "out",
                   "--train-budget", "1steps", *CPU)  # fmt: skip
        yield Case(
            "damaged image, benchmark",
            name,
            command,
            {**files, **witness},
            codes=(3,),
            says="[012].png",
            env=env,
        )


def _scenes(kit: Kit) -> Iterator[Case]:
    good = _scene(0)
    thing = good["objects"][0]
    fields: dict[str, tuple[dict[str, Any], str]] = {
        "rotation null": ({"rotation": None}, "rotation is 'None'"),
        "rotation text": ({"rotation": "left"}, "rotation is 'left'"),
        "pixel_coords null": ({"pixel_coords": None}, "pixel_coords is 'None'"),
        "pixel_coords one": ({"pixel_coords": [1]}, "pixel_coords must be x and y"),
        "pixel_coords text": ({"pixel_coords": ["a", "b"]}, "pixel_coords is"),
        "pixel_coords a number": ({"pixel_coords": 7}, "pixel_coords is '7'"),
        "pixel_coords NaN": ({"pixel_coords": [float("nan"), 2]}, "pixel_coords is"),
        "pixel_coords beyond": ({"pixel_coords": [float("inf"), 2]}, "pixel_coords is"),
        "3d_coords text": ({"3d_coords": "here"}, "3d_coords is 'here'"),
        "3d_coords null": ({"3d_coords": None}, "3d_coords is 'None'"),
        "rotation true": ({"rotation": True}, "rotation is 'True'"),
    }
    for name, (changed, says) in fields.items():
        scenes = [good, _scene(1, objects=[thing, {**thing, **changed}])]
        yield Case(
            "wrong field", name, _train("clevr"), _clevr(scenes), codes=(3,), says=rf"1\.png, object 1: {says}"
        )
    whole: dict[str, tuple[dict[str, Any], str]] = {
        "image_filename null": ({"image_filename": None}, "image_filename of scene 1"),
        "image_filename a number": ({"image_filename": 7}, "image_filename of scene 1"),
        "image_index text": ({"image_index": "one"}, "image_index of scene 1"),
        "objects null": ({"objects": None}, "objects of scene 1"),
        "objects text": ({"objects": "cube"}, "objects of scene 1"),
        "an object text": ({"objects": ["cube"]}, "object 0: 'cube' is not an object"),
        "a long name that is none": ({"image_filename": "n" * 300}, "missing"),
        "an absolute path": ({"image_filename": "/etc/passwd"}, "not a file in"),
        "a path outside": ({"image_filename": "../../../secret.png"}, "not a file in"),
        "a path outside and in": (
            {"image_filename": "../../images/train/../../../secret.png"},
            "not a file in",
        ),
        "the folder itself": ({"image_filename": "."}, "not a file in"),
        "a zero byte": ({"image_filename": "a\0.png"}, "not a file in"),
        "a control": ({"image_filename": "\x1b[31m.png"}, "missing"),
        "a long name": ({"image_filename": "n" * 3000}, ""),
    }
    for name, (changed, says) in whole.items():
        files = {**_clevr([good, _scene(1, **changed)]), "secret.png": PICTURE}
        yield Case("wrong field", name, _train("clevr"), files, codes=(3,), says=says)
    del (lacking := _scene(1))["image_index"]
    yield Case(
        "wrong field",
        "no image_index",
        _train("clevr"),
        _clevr([good, lacking]),
        codes=(3,),
        says="image_index",
    )
    text = json.dumps({"scenes": [_scene(n) for n in range(3)]})
    texts: dict[str, bytes | str] = {
        "empty": "", "half": text[: len(text) // 2], "a list": "[]", "null": "null", "a number": "7", "no scenes": "{}",
        "scenes null": '{"scenes": null}', "scenes a table": '{"scenes": {}}', "scenes of numbers": '{"scenes": [1]}',
        "none": '{"scenes": []}', "UTF-16": text.encode("utf-16"), "latin-1": b'{"scenes": "\xe9"}', "zero bytes": bytes(40),
        "nested": "[" * 100_000, "long": '{"scenes": "' + "a" * 100_000 + '"}', "controls": '{"scenes": "\x1b[31m\u202e"}',
    }  # fmt: skip
    for name, content in texts.items():
        yield Case("scenes file", name, _train("clevr"), _clevr(content), codes=(3,))
    with_mark = b"\xef\xbb\xbf" + text.encode()
    yield Case("scenes file", "a byte order mark", _train("clevr"), _clevr(with_mark), "answered")
    pipe = {**_clevr([good]), "d/scenes/CLEVR_train_scenes.json": os.mkfifo}
    yield Case("scenes file", "a pipe", _train("clevr"), pipe, codes=(3,))
    yield Case("scenes file", "no folder of images", _train("clevr"),
               {"d/scenes/CLEVR_train_scenes.json": text, "d/scenes/CLEVR_val_scenes.json": text}, codes=(3,))  # fmt: skip


def _ranges(kit: Kit) -> Iterator[Case]:
    deep = tiff((GREY.astype("<u2") * 16).tobytes())
    files = {f"d/cat_{n}.tif": deep for n in range(3)}
    yield Case(
        "range in a data set", "said once", _train("pictures"), files, "answered", says="65535 for white"
    )
    yield Case("range in a data set", "--set data.range", _train("pictures", "--set", "data.range=0,4095"), files,
               "answered", check=lambda outcome: "said" if "for white" in outcome.err else None)  # fmt: skip
    yield Case("range in a data set", "--range", _train("pictures", "--range", "0,4095"), files,
               "answered", check=lambda outcome: "said" if "for white" in outcome.err else None)  # fmt: skip
    for text in ("a", "1", "5,1", "0,nan"):
        yield Case(
            "range in a data set", text, _train("pictures", "--set", f"data.range={text}"), files, codes=(2, 3)
        )
        yield Case(
            "range in a data set", f"--range {text}", _train("pictures", f"--range={text}"), files, codes=(2, 3)
        )
    yield Case("range in a data set", "no data root", ("train", "animals", "--range", "0,1", *DRY), codes=(2,),
               says="--data-root")  # fmt: skip
    yield Case("range in a data set", "benchmark without a data root", ("benchmark", "objects", "--range", "0,1", *CPU),
               codes=(2,), says="--data-root")  # fmt: skip


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _header(shape: str, kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text


def _npz(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def _safetensors(description: dict[str, Any], data: bytes = b"") -> bytes:
    head = json.dumps(description).encode()
    return struct.pack("<Q", len(head)) + head + data


def _vectors(kit: Kit) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    words = np.sign(rng.standard_normal((2, 4, 64))).astype(np.float32)
    description, data = {}, b""
    for number, book in enumerate(words):
        description[f"factor_{number}"] = {
            "dtype": "F32", "shape": [4, 64], "data_offsets": [len(data), len(data) + book.nbytes]
        }  # fmt: skip
        data += book.tobytes()
    books = _safetensors({**description, "__metadata__": {"binding": "map"}}, data)
    bound = words[0, 1] * words[1, 2]

    def changed(value: float) -> np.ndarray:
        spoilt = bound.copy()
        spoilt[5] = value
        return spoilt

    files: dict[str, tuple[str, bytes, str]] = {
        "NaN": ("v.npy", _npy(changed(np.nan)), "not finite"),
        "infinity": ("v.npy", _npy(changed(np.inf)), "not finite"),
        "NaN in float64": ("v.npy", _npy(changed(np.nan).astype(np.float64)), "not finite"),
        "beyond float32": ("v.npy", _npy(changed(1.0).astype(np.float64) * 1e300), "beyond those of float32"),
        "zero": ("v.npy", _npy(np.zeros(64, np.float32)), "zero"),
        "of another size": ("v.npy", _npy(np.ones(65, np.float32)), "dimension"),
        "truth values": ("v.npy", _npy(np.ones(64, bool)), "truth values"),
        "text": ("v.npy", _npy(np.array(["a"] * 64)), "not numbers"),
        "of no size": ("v.npy", _npy(np.ones((0, 64), np.float32)), "without a number"),
        "three axes": ("v.npy", _npy(np.ones((2, 2, 64), np.float32)), "shape"),
        "a scalar": ("v.npy", _npy(np.float32(1)), "shape"),
        "a pickle": ("v.npy", b"\x80\x04K\x01.", "pickle"),
        "objects": ("v.npy", _header("(64,)", "|O"), "pickle"),
        "cut": ("v.npy", _npy(bound)[:150], "v.npy"),
        "8 GB claimed": ("v.npy", _header("(2000000000,)"), "GB"),
        "2^62 claimed": ("v.npy", _header(f"({2**62},)"), "GB"),
        "a negative shape": ("v.npy", _header("(-64,)"), "v.npy"),
        "a shape that is none": ("v.npy", _header("'a'"), "v.npy"),
        "noise": ("v.npy", kit.random.randbytes(200), "v.npy"),
        "empty": ("v.npy", b"", "empty"),
        "an archive, 8 GB claimed": ("v.npz", _npz("vectors.npy", _header("(2000000000,)") + bytes(1 << 20)), "GB"),
        "an archive, 2^62 claimed": ("v.npz", _npz("vectors.npy", _header(f"({2**62},)")), "GB"),
        "an archive of text": ("v.npz", _npz("vectors.npy", b"no array"), "v.npz"),
        "an archive of nothing": ("v.npz", b"PK\x05\x06" + bytes(18), "v.npz"),
        "an archive of another path": ("v.npz", _npz("../../vectors.npy", b"no array"), "v.npz"),
        "an archive, cut": ("v.npz", _npz("vectors.npy", _npy(bound))[:100], "v.npz"),
        "safetensors, 8 GB claimed": (
            "v.safetensors",
            _safetensors({"vectors": {"dtype": "F32", "shape": [2 * 10**9], "data_offsets": [0, 8 * 10**9]}}), "v.safe"
        ),
        "safetensors, head claimed": ("v.safetensors", struct.pack("<Q", 2**60) + b"{}", "v.safetensors"),
        "safetensors, cut": ("v.safetensors", books[:300], "v.safetensors"),
        "safetensors, overlapping": (
            "v.safetensors",
            _safetensors({n: {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]} for n in "ab"}, bytes(256)), "v.safe"
        ),
        "safetensors, nested": ("v.safetensors", struct.pack("<Q", 5000) + b"[" * 5000, "v.safetensors"),
        "safetensors, of 8 bits": (
            "v.safetensors",
            _safetensors({"vectors": {"dtype": "BOOL", "shape": [64], "data_offsets": [0, 64]}}, bytes(64)), "truth values"
        ),
    }  # fmt: skip
    for name, (file, content, says) in files.items():
        yield Case("vectors", name, ("decompose", file, "--codebooks", "b.safetensors", *CPU),
                   {file: content, "b.safetensors": books}, codes=(3,), says=says)  # fmt: skip
        if file.endswith(".safetensors"):
            yield Case("codebooks", name, ("decompose", "v.npy", "--codebooks", file, *CPU),
                       {file: content, "v.npy": _npy(bound)}, codes=(3,), says=file[:6])  # fmt: skip
    for kind, content in {
        "a pipe": os.mkfifo,
        "a folder": Path.mkdir,
        "a device": Path("/dev/zero"),
    }.items():
        for file in ("v.npy", "v.npz", "v.safetensors"):
            made: dict[str, Content] = {"b.safetensors": books, file: content}
            command = ("decompose", file, "--codebooks", "b.safetensors", *CPU)
            yield Case("vectors", f"{kind}, {file}", command, made, codes=(3,), says=kind.split()[1][:4])
    fine: dict[str, tuple[str, bytes]] = {
        "one vector": ("v.npy", _npy(bound)),
        "of 8 bits": ("v.npy", _npy(bound.astype(np.int8))),
        "float64": ("v.npy", _npy(bound.astype(np.float64))),
        "Fortran's order": ("v.npy", _npy(np.asfortranarray(np.stack([bound, bound])))),
        "big endian": ("v.npy", _npy(bound.astype(">f4"))),
        "an archive": ("v.npz", _npz("anything.npy", _npy(bound))),
    }
    for name, (file, content) in fine.items():
        yield Case("vectors, right", name, ("decompose", file, "--codebooks", "b.safetensors", "--json", *CPU),
                   {file: content, "b.safetensors": books}, "answered", check=_codewords)  # fmt: skip


def _codewords(outcome: Any) -> str | None:
    found = [[item["index"] for item in record["items"]] for record in outcome.json()]
    return None if found and all(each == [1, 2] for each in found) else f"{found}, not [1, 2]"
