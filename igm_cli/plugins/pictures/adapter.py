"""Dataset ``pictures``: a folder of your own pictures, each labelled with the things in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igm_cli.errors import MissingError, UsageError, near_names
from igm_cli.plugins.base import Progress
from igm_cli.plugins.choices import check_request
from igm_cli.plugins.pictures.folder import LAYOUTS, SPLITS, from_folder
from igm_cli.plugins.pictures.words import Vocabulary

if TYPE_CHECKING:
    import datasets

_OPTIONS = {
    "labels": "labels between commas, e.g. cat,dog,rabbit: only these count; else every one that is found",
    "layout": "where labels stand: jsonl (metadata.jsonl), csv (labels.csv), names (cat_dog_1.jpg), "
    "folders (cat_dog/1.jpg) or auto, which finds out",
}


class Pictures:
    """Pictures of several things, such as two of cat, dog and rabbit, with the names of these.

    A folder holds images at any depth, and says in one of four ways what they show:

    * ``metadata.jsonl`` as Hugging Face has it: ``{"file_name": "1.jpg", "labels": ["cat", "dog"]}``;
    * ``metadata.csv``, ``labels.csv`` or the only ``.csv``, with columns ``file,labels`` or ``file,cat,dog``;
    * names of files: ``cat_dog_003.jpg``;
    * names of folders: ``cat_dog/003.jpg``.

    A table, if there is one, says it all: images that it does not list are left out.  Where folders as well as
    files have names that may be labels, those of folders count, unless ``labels`` or ``layout`` says otherwise.

    With folders ``train``, ``val`` (or ``validation``) and ``test`` each split is one of them, in any of these
    layouts, or listed in a file beside the three.  With none of them every split is the whole folder.
    """

    name = "pictures"
    summary = "your own pictures of several things, labelled in a table or in their names"
    licence = "your own"
    source = "collect images named like cat_dog_1.jpg, or list them in a labels.csv, and give their folder"
    splits: tuple[str, ...] = SPLITS
    image_size = (64, 64)
    concepts = "labels"
    options: Mapping[str, str] = _OPTIONS
    presets: Mapping[str, Path] = {}

    def load(
        self,
        split: str,
        *,
        data_root: Path | None = None,
        limit: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        **options: Any,
    ) -> datasets.Dataset:
        """A split with columns ``image``, ``file`` (its path in the data root) and ``labels`` (their names).

        Images are in the order of their paths, the same on every machine, and read only when they are asked for.
        Labels are in lower case, each once, in the order they are written in.

        Args:
            split: ``train``, ``val`` or ``test``.
            data_root: The folder.
            limit: At most so many images.
            seed: Of no effect: nothing is drawn by lot.
            progress: Never called: no image is read yet.
            **options: See ``options``.

        Raises:
            UsageError: If the split or an option is unknown.
            MissingError: If no data root is given.
            InputError: If the folder has no images or no such split, or an image has no label.
        """
        check_request(self.name, split, self.splits, options, _OPTIONS)
        vocabulary = Vocabulary.of(options.get("labels"))
        layout = options.get("layout", "auto")
        if layout not in LAYOUTS:
            raise UsageError(f"unknown layout {layout!r}; {near_names(str(layout), LAYOUTS)}")
        if data_root is None:
            raise MissingError(
                "pictures has no images of its own; give the folder of yours with --data-root FOLDER"
            )
        return from_folder(data_root, split, limit, layout, vocabulary)
