"""What a data set is, as a short hash for the cell key, without building it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lossbench.data import sources

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
    if name == "folder":
        from lossbench.data.layouts import content_hash

        how = params.get("images", ""), params.get("masks", ""), tuple(params.get("leave_out", ()))
        files = content_hash(params.pop("path"), *how)
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
