"""What ``lossbench inspect`` shows of a user's data: what was understood, what is suspicious, what the sweep
will see, and where to start from. Every file is looked at; a few numbers of each are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lossbench.base.columns import FEWEST_GROUPS
from lossbench.base.errors import UserError
from lossbench.data import leaks, parts, suggestion
from lossbench.data.coding import (
    MANY,
    Coding,
    Options,
    Unclear,
    Values,
    describe,
    mended,
    names_of,
    strays_in,
    understand,
    values_of,
)
from lossbench.data.container import SPLITS, VOID, Data, size_text
from lossbench.data.folder import folder, listed_archive
from lossbench.data.formats import has_alpha
from lossbench.data.layouts import find
from lossbench.data.pairs import Layout
from lossbench.data.patches import Patches
from lossbench.data.reading import Look, Progress, looks, numbered_objects, quiet, survey
from lossbench.data.splitting import TEST, within
from lossbench.data.tables import write_groups

TINY = 10  # pixels of an object that is mentioned

INVERTED = 0.5  # share of the pixels, and of the images' border, above which foreground is doubted

FEW = 20  # images, below which intervals are wide

MOST_LEFT_OUT = 20  # pairs that are left out by name; more are a question of the folder


@dataclass(frozen=True)
class Findings:
    """What ``inspect`` returns; ``suspicious`` are sentences, ``groups`` names with their guessed group,
    ``stops`` is why ``experiment`` could not run, or ''.
    """

    path: str
    layout: str
    pairs: int
    sizes: str
    split: str
    classes: list[dict[str, Any]]
    empty: float
    sees: list[str]
    suspicious: list[str]
    groups: dict[str, str]
    spec: str
    experiment: str
    stops: str
    sheet: list[tuple[str, str]]  # (what, name) of the images that a contact sheet shows
    layout_of: Layout
    coding: Coding


def inspect(
    path: str | Path, images: str = "", masks: str = "", progress: Progress = quiet, accept: bool = False
) -> Findings:
    """Return what was understood of a folder in any layout, a table of pairs or a MedSegBench file.

    - ``classes``: rows of ``id, name, fraction`` (of pixels that are not void), ``present`` (share of
      images), ``median_object`` and ``smallest_object`` (pixels of a connected region);
    - ``empty``: share of images without foreground; ``sees``: what training and test will see;
    - ``spec``: the data set's spec string, with the options that it needs; ``experiment``: a TOML text.

    ``accept``: guessed groups are written beside the images, and the split is dealt by them.
    """
    # All that the data set needs to be read as it was read here; it ends in the spec.
    options: dict[str, Any] = {k: v for k, v in (("images", images), ("masks", masks)) if v}
    layout = find(path, images, masks, strict=False)
    if not layout.pairs:
        layout, category = listed_archive(layout.root)
        options |= {"category": category} if category else {}
    doubts = list(layout.notes)
    # Twice over the files: what values mean is known only after all masks were seen.
    seen = survey(layout, strict=False, progress=progress)
    if not seen.shapes:
        raise UserError(f"{path}: none of its pairs can be read; {min(seen.broken.values())}")
    coding, needed = _coding(layout, seen.values, doubts)
    options |= needed
    readable = replace(layout, pairs=[pair for pair in layout.pairs if pair.name not in seen.broken])
    every, broken = looks(readable, coding, progress)
    broken |= seen.broken
    if not every:
        raise UserError(f"{path}: none of its pairs can be read; {min(broken.values())}")
    left_out = _left_out(layout, broken, doubts)
    options |= {"leave_out": list(left_out)} if left_out else {}
    rows = _classes(every, names_of(coding, layout.classes))
    # Shown beside the name, since only the user knows what 3 is.
    for row in rows:
        row["values"] = values_of(coding, row["id"], seen.values)
    # Where names or colours say what the classes are, they are no numbers of objects.
    doubts += [] if layout.classes or coding.names else numbered_objects(every)
    doubts += _about_masks(every, rows, coding, seen.values) + _about_images(every, readable)
    # Accepted before the data are opened: the split, and whether it holds enough, follow from them.
    groups = _groups(every, layout, doubts, accept)
    data, stops, why = _opened(str(path), options, layout, doubts)
    sees, bare = [why] if why else [], 0.0
    if data:
        stops, seen_by, bare = _sees(data, every, rows)
        sees += seen_by
    doubts += [f"a sweep would stop here: {stops}"] if stops else []
    given = [f"path={str(path)!r}", *(f"{key}={value!r}" for key, value in options.items())]
    spec = f"folder({', '.join(given)})"
    return Findings(
        path=str(path),
        layout=layout.kind,
        pairs=len(layout.pairs),
        sizes=_sizes(every),
        split=_split(data),
        classes=rows,
        empty=float(np.mean([not look.counts[1:].any() for look in every])),
        sees=sees,
        suspicious=doubts,
        groups=groups,
        spec=spec,
        experiment=suggestion.experiment(
            Path(path),
            spec,
            every,
            suggestion.rarest(rows),
            options.get("test_fraction", suggestion.SPLIT),
            [*(f"left out: {reason}" for reason in left_out.values()), *([why] if why else [])],
            bare,
        ),
        stops=stops,
        sheet=_worth_seeing(every, rows),
        layout_of=layout,
        coding=coding,
    )


# --- what masks mean


def _coding(layout: Layout, seen: Values, doubts: list[str]) -> tuple[Coding, dict[str, Any]]:
    """Return how values are read and the options that this needs; a guess becomes a doubt."""
    declared = len(layout.classes) if layout.classes else None
    options: dict[str, Any] = {}
    try:
        coding = understand(seen, Options(), declared, str(layout.root))
        strange = [value for value in sorted(seen.pixels) if coding.of(value) < 0]
        if strange:
            doubts.append(f"{describe(seen, strange)}, but classes 0 to {declared - 1} are declared")
    except Unclear as error:
        # The sweep would refuse these masks; here the likely meaning is tried and said to be a guess.
        if not error.options:
            raise
        options = error.options
        coding = understand(seen, Options(**options), None, "")
        doubts.append(f"{str(error).partition(': ')[2]}. Here it is: {coding.text}")
    if coding.above is not None and not options:
        soft = sum(pixels for value, pixels in seen.pixels.items() if value)
        sharp = sum(pixels for value, pixels in seen.pixels.items() if value > coding.above)
        doubts.append(
            f"{coding.text}; with every pixel above 0 it would be {soft / max(sharp, 1) - 1:.0%} more"
        )
    if coding.of(VOID) == VOID and seen.pixels[VOID]:
        share = f"the value 255 covers {seen.pixels[VOID] / seen.pixels.total():.2%} of the pixels"
        doubts.append(f"{share} and is read as void (left out of losses and scores)")
    values = sorted(seen.pixels)
    strays = [value for value in strays_in(seen, values) if coding.of(value) not in (-1, VOID)]
    if coding.above is None and strays and not options and len(values) <= MANY:
        mend = mended([value for value in values if value not in strays], strays)["values"]
        doubts.append(
            f"{describe(seen, strays)}: rare classes, or mistakes? Mistakes are mended by values={mend}"
        )
    if coding.above is None:  # so that the rest of the masks can still be counted
        strange = {value: VOID for value in seen.pixels if value not in coding.ids}
        coding = replace(coding, ids=coding.ids | strange)
    return coding, options


def _left_out(layout: Layout, broken: dict[str, str], doubts: list[str]) -> dict[str, str]:
    """Return what cannot be used and so is left out, by name, each with the reason, and say so."""
    lonely = {sentence.split("'")[1]: sentence for sentence in layout.unmatched}
    if lonely:
        doubts.append(f"{len(lonely)} unmatched: {layout.unmatched[0]}")
    if broken:
        doubts.append(f"{len(broken)} of {len(layout.pairs)} pairs cannot be used: {min(broken.values())}")
    # By name, so that the written experiment runs as it is.
    reasons = dict(sorted(broken.items())) | lonely
    if len(reasons) > MOST_LEFT_OUT:
        doubts.append(f"{len(reasons)} files would have to be left out: look at the folder first")
        return {}
    return reasons


def _classes(every: Sequence[Look], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return a row for each class."""
    counts = np.stack([look.counts for look in every])
    rows = []
    for kind, name in enumerate(names):
        objects = [pixels for look in every for k, pixels, _ in look.objects if k == kind]
        rows.append(
            {
                "id": kind,
                "name": name,
                "fraction": float(counts[:, kind].sum() / max(counts.sum(), 1)),
                "present": float((counts[:, kind] > 0).mean()),
                "median_object": float(np.median(objects)) if objects else None,
                "smallest_object": min(objects, default=None),
            }
        )
    return rows


def _about_masks(every: Sequence[Look], rows: list[dict], coding: Coding, seen: Values) -> list[str]:
    """Return what is doubtful about the masks."""
    doubts = _inverted(every, rows, coding, seen)
    if rows[0]["present"] == 0:
        doubts.append("no mask holds the background (value 0): are images and masks swapped?")
    doubts += [f"class {row['id']} ({row['name']}) never occurs" for row in rows[1:] if row["present"] == 0]
    empty = sum(not look.counts[1:].any() for look in every)
    if empty:
        effect = "how losses treat them decides their false alarms"
        doubts.append(f"{empty / len(every):.1%} of the images hold no foreground; {effect}")
    small = [pixels for look in every for _, pixels, _ in look.objects if pixels < TINY]
    if small:
        count = sum(len(look.objects) for look in every)
        share = f"{len(small)} of {count} objects are smaller than {TINY} px (smallest {min(small)})"
        doubts.append(f"{share}: true, or specks of the annotation?")
    return doubts


def _inverted(every: Sequence[Look], rows: list[dict], coding: Coding, seen: Values) -> list[str]:
    """Return a sentence where foreground is most of the pixels and of the images' borders."""
    share = 1 - rows[0]["fraction"]
    # Losses and scores leave the background out: which class it is decides everything.
    most = max(rows, key=lambda row: row["fraction"])
    if len(rows) > 2 and most["id"] and most["fraction"] > INVERTED:
        sizes = f"{most['fraction']:.0%} of the pixels, the background {rows[0]['fraction']:.1%}"
        return [f"class {most['id']} (value {most['values']}) is {sizes}: put the background's value first"]
    if len(rows) != 2:
        return []
    if share > INVERTED and np.mean([look.frame for look in every]) > INVERTED:
        # Two values are turned; of soft edges the top and 0 are.
        values = [value for value in sorted(seen.pixels) if coding.of(value) in (0, 1)]
        mend = f"values={[max(values), min(values)]}" if len(values) == 2 else "values=[255, 0]"
        most = f"foreground is {share:.0%} of the pixels and most of the images' borders"
        return [f"{most}: are the masks inverted? If so, write {mend}"]
    # Those beside others that cover less than a quarter.
    odd = [
        look.name
        for look in every
        if look.frame > INVERTED and look.counts[1] > INVERTED * look.counts.sum() and share < INVERTED / 2
    ]
    few = len(odd) < len(every) / 10
    return [f"{len(odd)} masks look inverted beside the others ('{odd[0]}')"] if odd and few else []


def _about_images(every: Sequence[Look], layout: Layout) -> list[str]:
    """Return what is doubtful about the images."""
    doubts = []
    channels: dict[int, str] = {}
    for look in every:
        channels.setdefault(look.channels, look.name)
    if len(channels) > 1:
        each = ", ".join(f"{count} in '{name}'" for count, name in sorted(channels.items()))
        grey = ": grey ones get each colour alike" if set(channels) == {1, 3} else ""
        doubts.append(f"images differ in channels: {each}{grey}")
    deep = [look for look in every if look.kind in ("uint16", "int16")]
    if deep:
        top = max(look.top for look in deep)
        doubts.append(
            f"{len(deep)} images have 16 bit, up to {top:g}; each is z-scored by itself, nothing is cut"
        )
    alpha = sum(has_alpha(pair.images) for pair in layout.pairs)
    if alpha:
        doubts.append(f"{alpha} images have an alpha channel, which is not used")
    flat = sum(not look.thumbnail.any() for look in every)
    if flat:
        doubts.append(f"{flat} images are constant")
    if len(every) < FEW:
        doubts.append(f"{len(every)} images are few: expect wide intervals")
    return doubts


def _sizes(every: Sequence[Look]) -> str:
    channels = "/".join(map(str, sorted({look.channels for look in every})))
    return (
        f"{size_text(np.array([look.size for look in every]))}, {channels} channel{'s' * (channels != '1')}"
    )


# --- what belongs together


def _groups(every: Sequence[Look], layout: Layout, doubts: list[str], accept: bool) -> dict[str, str]:
    """Return groups that are guessed where the user gave none, write them where they are accepted, and say
    what would leak.
    """
    part_of = {pair.name: pair.part for pair in layout.pairs}
    names, split = [look.name for look in every], [part_of[look.name] for look in every]
    thumbs = np.stack([look.thumbnail for look in every])
    # Whatever groups or splits were given: they may be wrong.
    test, others = (np.flatnonzero(np.isin(split, own)) for own in (["test"], ["train", "val"]))
    crossing = leaks.nearest_outside(thumbs[test], thumbs[others])
    if crossing:
        one, other = names[test[crossing[0][0]]], names[others[crossing[0][1]]]
        near = f"{len(crossing)} test images have a near-duplicate outside test"
        doubts.append(f"{near} ('{one}' and '{other}'): it leaks")
    if len(names) < 3 or any(pair.group for pair in layout.pairs):
        return {}
    alike = leaks.near_duplicates(thumbs)
    guessed = leaks.guessed_groups(names, thumbs)
    # A near-duplicate binds, whatever the names say.
    groups = leaks.joined(guessed, alike, names)
    count = len(set(groups))
    if count == len(names):
        return {}
    if count < 3:
        one, other = (names[n] for n in alike[0])
        doubled = len({n for pair in alike for n in pair})
        which = "all images" if doubled == len(names) else f"{doubled} of {len(names)} images"
        units = f"{count} independent unit{'s' * (count > 1)}"
        doubts.append(
            f"{which} are near-duplicates of one another (such as '{one}' and '{other}'), {units}: "
            "a split of them says nothing of other images"
        )
        return {}
    why = []
    if guessed:
        example = Counter(guessed).most_common(1)[0][0]
        why.append(f"names tell {len(set(guessed))} groups (such as '{example}')")
    if alike:
        one, other = (names[n] for n in alike[0])
        doubled = len({n for pair in alike for n in pair})
        why.append(f"{doubled} images have a near-duplicate ('{one}' and '{other}')")
    known = leaks.divided(groups, split)
    if known:
        doubts.append(f"{' and '.join(why)}: {known} test images belong to a group that training sees too")
        return {}
    # An official split stays; groups would deal it anew.
    if split[0]:
        return {}
    guess = dict(zip(names, groups, strict=True))
    said = f"a random split may leak; accept {count} groups by --groups"
    if accept:
        # What was found in minutes is not lost where a folder cannot be written to.
        try:
            said = f"{write_groups(layout, guess)} has {count} groups, and the split is dealt by them"
        except UserError as error:
            said = f"a random split may leak, and {error}"
    doubts.append(f"{' and '.join(why)}: {said}")
    return guess


# --- what the sweep will see


def _opened(
    path: str, options: dict[str, Any], layout: Layout, doubts: list[str]
) -> tuple[Data | None, str, str]:
    """Return the data set as a sweep opens it, or None and what stops a sweep; and why test takes more than
    its usual share, which becomes an option.
    """
    try:
        # Opened as a sweep does, so that what stops a sweep stops here; it is kept prepared.
        data = folder(seed=0, path=path, **options)
    except UserError as error:
        return None, str(error), ""
    why = ""
    if parts.too_few(data) and not any(pair.part for pair in layout.pairs):
        fewer = parts.independent(data)
        share = parts.larger(lambda share: folder(seed=0, path=path, **options, test_fraction=share))
        if share:
            options["test_fraction"] = share
            data = folder(seed=0, path=path, **options)
            why = (
                f"test takes {share:.0%}: of a fifth it would hold {fewer} independent images or groups, and "
                f"{FEWEST_GROUPS} are needed before a loss can be called better"
            )
    few, units = parts.too_few(data), len(np.unique(data.groups))
    if few:
        doubts.append(f"{few}: add images, or groups of them")
    elif units < FEW:
        doubts.append(f"there are {units} independent units; trust in a difference needs {FEW} or more")
    doubts += parts.lacks(data)
    return data, "", why


def _split(data: Data | None) -> str:
    if data is None:
        return "no split"
    counts = ", ".join(f"{part} {len(data.split[part])}" for part in SPLITS)
    units = len(np.unique(data.groups))
    return f"{counts}; unit: {f'{units} groups' if units < len(data) else 'single images'}"


def _sees(data: Data, every: Sequence[Look], rows: list[dict]) -> tuple[str, list[str], float]:
    """Return what stops training, or nothing, what training and test will see, and the share of patches
    without foreground.
    """
    side, how = suggestion.patch_side(every), suggestion.sampler(suggestion.rarest(rows))
    share, sees = 1 - rows[0]["fraction"], []
    if not data.counts[data.split["train"], 1:].any():
        return "no training image holds foreground, so no loss could learn it; change split.csv", [], 0.0
    try:
        patches = Patches(data, side, how)
    except UserError as error:
        return str(error), [], 0.0
    # Of a thousand patches, as training draws them.
    drawn = 1 - patches.frequency()[0]
    within_patch = f"foreground is {share:.2%} of all pixels and {drawn:.2%} of what training sees"
    sees.append(f"patches of {side} px, {how}: {within_patch}")
    bare = patches.bare()
    if bare >= suggestion.MANY_BARE:
        sees.append(f"{bare:.0%} of the patches hold no foreground: Dice of each may end by marking none")
    test = within(data, "test", TEST)
    pixels = data.sizes.prod(1)
    seen = pixels[test].sum() / pixels[data.split["test"]].sum()
    sees.append(f"test sees {seen:.0%} of its pixels, as whole images with their own share of foreground")
    small = int((data.sizes[:, :2].min(1) < side).sum())
    if small:
        sees.append(f"{small} of {len(data)} images are smaller than the patch and are padded with void")
    if len(data) > len(every):
        empty = float((~data.counts[:, 1:].any(1)).mean())
        sees.append(f"volumes are taken as {len(data)} slices, of which {empty:.1%} hold no foreground")
    long = sum(longest > side for look in every for _, _, longest in look.objects)
    if long:
        sees.append(f"{long} of {sum(len(look.objects) for look in every)} objects are longer than the patch")
    return "", sees, bare


def _worth_seeing(every: Sequence[Look], rows: list[dict]) -> list[tuple[str, str]]:
    """Return the images of a contact sheet: what is rare, large, small, empty, and the usual."""
    chosen: dict[str, str] = {}

    def add(what: str, looked: list[Look]) -> None:
        for look in looked:
            if look.name not in chosen:
                chosen[look.name] = what
                return

    present = [row for row in rows[1:] if row["present"]]
    by_share = sorted(every, key=lambda look: -look.counts[1:].sum() / max(look.counts.sum(), 1))
    with_some = [look for look in by_share if look.counts[1:].any()]
    if present:
        rarest = min(present, key=lambda row: row["fraction"])
        holders = sorted(every, key=lambda look: -look.counts[rarest["id"]])
        add(f"the rarest class, {rarest['name']}", [h for h in holders if h.counts[rarest["id"]]])
        smallest = sorted(with_some, key=lambda look: min(pixels for _, pixels, _ in look.objects))
        add("the smallest object", smallest)
    add("most foreground", by_share)
    add("least foreground", with_some[::-1])
    if len({look.size for look in every}) > 1:
        add("the largest image", sorted(every, key=lambda look: -np.prod(look.size)))
    add("no foreground", [look for look in every if not look.counts[1:].any()])
    # The usual, after the extremes.
    for at in (0.25, 0.5, 0.75):
        add("", with_some[int(at * len(with_some)) :])
    return [(what, name) for name, what in chosen.items()]
