"""Prepared data sets: built once, kept by what they are made from, opened memory-mapped so that all processes
share one copy. What a set is made from is also its identity in the cell key, known without building it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.base.errors import UserError
from lossbench.base.files import sha256_of, write_atomically
from lossbench.base.process import cache_root
from lossbench.base.seeds import stream
from lossbench.base.specs import canonical
from lossbench.data import memory_maps, sources, splitting, windows
from lossbench.data.cache import locked, reason, whole_folder
from lossbench.data.container import SPLITS, VOID, Data, Ratings, container, digest, validate
from lossbench.data.formats import UNREADABLE
from lossbench.data.memory_maps import Written
from lossbench.data.pairs import Arrays, Pairs

SPLIT_ONLY = ("val_fraction", "test_fraction")  # parameters that decide the split, not the images

OWN = ("folder", "raters")  # data sets of the user's own files

_found_sound: set[tuple] = set()  # the files that this process has compared with their hashes


@dataclass
class Opened:
    """A prepared set as it lies on disk: images and masks as ``Data`` has them, arrays of facts, other
    facts.
    """

    images: Any
    masks: Any
    places: Any
    index: dict[str, np.ndarray]
    facts: dict[str, Any]


def open_prepared(
    name: str,
    spec: str,
    params: dict,
    version: int,
    build: Callable[[], Pairs | Arrays],
    card: dict,
) -> Data:
    """Return the data set from the cache, building it first where it is not there.

    What is prepared depends on the parameters and on the contents of the raw files alone. Nothing of an
    interrupted or failed build stays behind.
    """
    folder = prepared_path(name, params, version)
    # Most calls end here, without a lock.
    opened = _open(folder)
    if opened is None:
        try:
            with locked(folder):
                opened = _open(folder) or _build(folder, build, params, spec)
        except OSError as error:
            where = f"cannot write the prepared data set '{name}' to {folder.parent}: {reason(error)}"
            raise UserError(f"{where}; free some space or set LOSSBENCH_CACHE to another folder") from None
    facts, masks, ratings = opened.facts, opened.masks, None
    if "patterns" in opened.index:
        ratings = Ratings(masks, opened.index["patterns"])
        masks = ratings.masks(len(facts["classes"]))
    return container(
        name=spec,
        images=opened.images,
        masks=masks,
        ratings=ratings,
        split=_split(name, spec, params, opened),
        groups=opened.index["groups"],
        spacing=facts["spacing"],
        unit=facts["unit"],
        classes=tuple(facts["classes"]),
        ignore_index=VOID,
        places=opened.places,
        counts=opened.index["counts"],
        card={**card, **facts["notes"], "names": facts["names"]},
        digests=(facts["digests"]["images"], facts["digests"]["masks"]),
    )


def prepared_path(name: str, params: dict, version: int) -> Path:
    """Return the folder of a variant's prepared images, named by what they are made from."""
    # Variants that differ in their split alone share their images.
    kept = {key: value for key, value in params.items() if key not in SPLIT_ONLY}
    content, kept = content_of(name, kept)
    text = json.dumps([name, version, kept, content], sort_keys=True)
    return cache_root() / "prepared" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def is_prepared(spec: Any) -> bool:
    """Return whether a public set or a user's folder can be opened without being prepared first."""
    if spec.entry.family not in ("public", "folder"):
        return False
    folder = prepared_path(spec.name, spec.params, spec.entry.meta.get("version", 1))
    return (folder / "meta.json").is_file()


def missing(spec: Any) -> str:
    """Return the sentence that says how to get a public set that is not here; else an empty string."""
    source = source_of(spec.name, spec.params)
    if source is None:
        return ""
    return "" if is_prepared(spec) else sources.missing_files(source)


def _split(name: str, spec: str, params: dict, opened: Opened) -> dict[str, np.ndarray]:
    """Return the official split, or one dealt by group.

    It depends on the data set's name alone, so that the seed varies start, order and patches.
    """
    rng = stream("split", name, 0)
    groups, parts = opened.index["groups"], opened.facts["parts"]
    if not parts:
        fractions = tuple(params[key] for key in SPLIT_ONLY)
        strata = opened.index["strata"]
        # Of a user's images nobody else has looked at what a part of the split holds.
        if name in OWN:
            strata = splitting.rarest_held(groups, opened.index["counts"])
        return splitting.deal(groups, fractions, rng, strata, spec)
    parts = np.asarray(parts)
    # Many official splits have train and test alone.
    if "val" not in parts:
        parts = splitting.validation_from_train(groups, parts, rng)
    return {part: np.flatnonzero(parts == part) for part in SPLITS}


def _open(folder: Path) -> Opened | None:
    """Return what lies in a folder, or None where it is not there or not as it was written."""
    # Whatever a damaged file raises means "not there": it is prepared again.
    try:
        described = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        facts = described["facts"]
        if described["sha256"] != _hash_of(facts):
            return None
        if not all(_is_sound(folder / file, *mark) for file, mark in facts["files"].items()):
            return None
        with np.load(folder / "index.npz") as index:
            index = dict(index)
        # Everything is opened by mapping; no image is read.
        if facts["kind"] == "whole":
            return Opened(*memory_maps.open_written(folder, index, len(facts["classes"])), index, facts)
        images, masks = (np.load(folder / f"{key}.npy", mmap_mode="r") for key in ("images", "masks"))
        return Opened(images, masks, None, index, facts)
    except UNREADABLE:
        return None


def _is_sound(path: Path, size: int, time: int, sha256: str) -> bool:
    """Whether a file is as it was written: by size and time of change, else by its hash, once a process."""
    stat = path.stat()
    # A copied or restored cache has other times; its contents are then compared once.
    if [stat.st_size, stat.st_mtime_ns] == [size, time]:
        return True
    seen = (path, stat.st_size, stat.st_mtime_ns, sha256)
    if seen not in _found_sound and sha256_of(path) == sha256:
        _found_sound.add(seen)
    return seen in _found_sound


def _build(folder: Path, build: Callable[[], Pairs | Arrays], params: dict, spec: str) -> Opened:
    """Prepare what ``build`` hands over, as the parameter ``view`` says."""
    shutil.rmtree(folder, ignore_errors=True)  # what is there was found damaged
    made, view = build(), params.get("view", "whole")
    if isinstance(made, Pairs) and view in windows.VIEWS:
        made = windows.cut(made, view=view, size=params["size"], per_image=params["per_image"])
    # Before the work, not after it.
    if not made.items[0].part:
        splitting.check_units(len({item.group for item in made.items}), spec)
    with whole_folder(folder) as work:
        if isinstance(made, Arrays):
            written = _write_arrays(work, made, spec)
        else:
            written = memory_maps.write(work, made, made.slices or view == "whole_slices", spec)
        _write_facts(work, made, written, spec)
    opened = _open(folder)
    if opened is None:
        raise UserError(f"{folder}: the prepared data set cannot be read back; delete it and try again")
    return opened


def _write_arrays(work: Path, made: Arrays, spec: str) -> Written:
    # The same checks as for a user's own arrays.
    groups = np.array([item.group for item in made.items])
    spacing = made.spacing or (1.0,) * (made.masks.ndim - 1)
    data = Data(spec, made.images, made.masks, {}, groups, spacing, None, "", "px", made.classes, VOID)
    counts = validate(data)
    np.save(work / "images.npy", made.images)
    np.save(work / "masks.npy", made.masks)
    digests = {"images": digest(made.images), "masks": digest(made.masks)}
    return Written(made.items, made.names, {"counts": counts}, digests, {})


def _write_facts(work: Path, made: Pairs | Arrays, written: Written, spec: str) -> None:
    """Write index.npz and meta.json, which names every file with size, time of change and hash."""
    items, dims = written.items, made.masks.ndim - 1 if isinstance(made, Arrays) else written.dims
    columns = {key: np.array([getattr(item, key) for item in items]) for key in ("group", "stratum")}
    np.savez(work / "index.npz", **written.index, groups=columns["group"], strata=columns["stratum"])
    parts = [item.part for item in items]
    facts = {
        "spec": spec,
        "kind": "arrays" if isinstance(made, Arrays) else "whole",
        "names": written.names,
        "parts": parts if parts[0] else None,
        "classes": list(made.classes),
        "spacing": list(made.spacing or (1.0,) * dims)[:dims],
        "unit": made.unit,
        "notes": made.notes,
        "digests": written.digests,
        "files": {
            file.name: [
                file.stat().st_size,
                file.stat().st_mtime_ns,
                written.hashes.get(file.name) or sha256_of(file),
            ]
            for file in sorted(work.iterdir())
        },
    }
    # Written last: a folder without it is not complete.
    described = {"sha256": _hash_of(facts), "facts": facts}
    write_atomically(work / "meta.json", json.dumps(described).encode())


def _hash_of(facts: dict) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


# --- what a set is made from


FORMAT = 1  # raise when the preparation of every set changes its arrays


def identity(spec: Any) -> str:
    """Return 16 hexadecimal digits that change exactly when the arrays behind a resolved data spec may have
    changed.

    ``spec`` has ``name``, ``params`` and ``entry`` (see ``lossbench.catalogue.registry.DataSpec``). Counted
    in are the name, the declared version and all parameters; for a public set the hashes of its files; for a
    user's folder its contents; for a builder in a user's file its source. Paths, dates and machines are not.
    """
    # Built-in loaders declare a version; a user's builder is known by its source alone.
    content, params = content_of(spec.name, spec.params)
    if content is None and spec.entry.family == "user":
        content = spec.entry.fingerprint
    facts = [spec.name, spec.entry.meta.get("version", 1), params, content]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def content_of(name: str, params: dict) -> tuple[str | None, dict]:
    """Return the hash of the files behind a data set (None: there are none) and its parameters without
    paths.
    """
    params = dict(params)
    source = source_of(name, params)
    if source is not None:
        return f"{FORMAT} {sources.registry_hash(source)}", params
    if name in OWN:
        from lossbench.data.layouts import content_hash

        how = params.get("images", ""), params.get("masks", ""), tuple(params.get("leave_out", ()))
        files = content_hash(params.pop("path"), *how, raters=name == "raters")
        return f"{FORMAT} {files}", params
    if name == "torchvision":  # its files are not hashed: they are the user's, and very many
        params.pop("root")
        return str(FORMAT), params
    return None, params


def source_of(name: str, params: dict) -> str | None:
    """Return the public source that a data set is made from, or None."""
    if name in ("camvid", "camvid_binary"):
        return "camvid_full" if params.get("frames") == "all" else "camvid"
    return name if name in sources.SOURCES else None


# --- public sets


def open_public(
    function: Callable,
    given: dict[str, Any],
    build: Callable[[], Pairs | Arrays],
    version: int = 1,
) -> Data:
    """Return a public set, prepared from its raw files where it is not in the cache yet.

    ``function`` is the registered builder, ``given`` its parameters; ``version`` as in its decorator.
    """
    name = function.__name__
    # Where it comes from travels with the data, so that a report needs no look at this file.
    card = sources.get_source(source_of(name, given)).card()
    return open_prepared(name, canonical(function, given), given, version, build, card)
