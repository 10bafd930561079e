"""What a data set is, as a short hash for the cell key, without building it; and whether it is at hand."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from benchmark.data import sources


def identity(spec: Any) -> str:
    """Return 16 hexadecimal digits that change exactly when the arrays behind a resolved data spec may have changed.

    ``spec`` has ``name``, ``params`` and ``entry`` (see ``benchmark.registry.DataSpec``). Counted in are the name, the declared version
    and all parameters; for a public set the hashes of its files; for a user's folder its contents; for a builder in a
    user's file its source. Paths, dates and machines are not.
    """
    params = dict(spec.params)
    content: Any = None
    if spec.name in PUBLIC:
        content = sources.registry_hash(public_source(spec.name, params))
    elif spec.name == "folder":
        from benchmark.data.folder import content_hash

        content = content_hash(params.pop("path"))
    elif spec.name == "torchvision":
        params.pop("root")
    elif spec.entry.family == "user":
        content = spec.entry.fingerprint
    facts = [spec.name, spec.entry.meta.get("version", 1), params, content]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def missing(spec: Any) -> str:
    """Return the sentence that says how to get a public set that is not on this machine; an empty string if it is, or is no public set."""
    if spec.name not in PUBLIC:
        return ""
    name = public_source(spec.name, spec.params)
    if sources.raw_folder(name) is not None:
        return ""
    from benchmark.data.prepare import prepared_folder

    return "" if prepared_folder(spec.name, spec.params) is not None else sources.how_to_get(name)


PUBLIC = ("msd_hippocampus", "magnetic_tile", "crackforest", "camvid", "sirst")


def public_source(name: str, params: dict) -> str:
    """Return the registry that a public set's parameters ask for."""
    return "camvid_full" if name == "camvid" and params.get("frames") == "all" else name
