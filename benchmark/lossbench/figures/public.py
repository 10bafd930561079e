"""Real images: losses on them beside the values that others published, and what the masks look like."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.analysis.selection import real
from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure

# What the published chart compares, and Dice over the batch, which it does not have: our spec -> its name in
# experiments/published.csv, and its family.
LOSSES = {
    "ce": "ce",
    "dice": "dice",
    "batch_dice(classes='all')": "batch dice",
    "dice_ce": "dice + ce",
    "ce + log_dice": "log dice + ce",
    "ce_l1": "ce + l1",
}
FAMILIES = ("distribution", "overlap", "overlap", "compound", "compound", "size")

WIDEST = 6  # panels in a row
LEAST = 6.0  # points that a panel spans at least, so that hair's breadths do not look like differences

# What the numbers behind the figure hold.
SETS = ["source", "label", "loss", *points.SUMMARY]


@figure("public_sets", number=1, title="Losses on public data sets: measured here, and published")
def public_sets(tables: Mapping[str, pd.DataFrame]):
    """Top: Dice of each public set, mean over seeds; below: published values of other sets, digitised."""
    cells, left = points.usual(_compared(tables))
    if not len(cells) or "dice@0.5" not in cells:
        some = ", ".join(LOSSES)
        raise NothingToDraw(f"needs cells of public data sets and of at least two of the losses {some}")
    # The order and the labels of the panels.
    sets = points.rarest_first(cells)[[*points.VARIANT, "label"]]
    measured = points.means(cells, "dice@0.5").merge(sets, on=points.VARIANT)
    measured = points.mapped(measured, lambda values: 100 * values).assign(source="measured")
    theirs = published()
    # What was not learnt says who learns sooner: it is shown, but it is no result.
    missed = set(cells.loc[~points.ended(cells, tables), "data_label"])
    labels = {"measured": list(sets["label"].unique()), "published": list(theirs["label"].unique())}
    data = pd.concat([measured, theirs], ignore_index=True)
    short = dict(zip(labels["measured"], points.set_names(labels["measured"]), strict=True))
    # So many in a row that a title has room.
    rows = [
        (source, own[n : n + WIDEST]) for source, own in labels.items() for n in range(0, len(own), WIDEST)
    ]
    drawing, axes = style.canvas(len(rows), max(len(own) for _, own in rows), 2.3 * len(rows))
    named = {"loss": list(LOSSES), "loss_label": list(LOSSES.values()), "family": FAMILIES}
    looks = style.lines(pd.DataFrame(named))
    # Marks without lines: between losses there is nothing to connect.
    looks = {loss: look | {"linestyle": "", "markersize": 6} for loss, look in looks.items()}
    for row, (source, names) in enumerate(rows):
        for axis, label in zip(axes[row], names, strict=False):
            own = data[(data["source"] == source) & (data["label"] == label)]
            _panel(axis, own, looks, label not in missed)
            axis.set_title(style.fitting(short.get(label, label), 18))
        for axis in axes[row][len(names) :]:
            axis.set_axis_off()
        axes[row][0].set_ylabel(f"Dice, % ({'here' if source == 'measured' else source})")
    keys = [style.key(name, **looks[loss]) for loss, name in LOSSES.items()]
    if missed:
        keys.append(
            style.key("not learnt", color=style.SOFT, marker="o", markerfacecolor=style.PAPER, linestyle="")
        )
    style.legend(drawing, keys, len(keys))
    says = (
        "Top: mean Dice of the masks at 0.5 over test images, then classes, bars 95 % t intervals over "
        "seeds; the losses of a seed share start and batches, so that bars may overlap and the difference "
        "still be sure. Bottom: values that Liu et al. (2024) show for their networks and data sets, read "
        "off the radar chart in their repository to about 0.1; they come without intervals, the chart does "
        "not say which of their size terms 'ce + l1' is, and has no point for Dice on AMOS and none for Dice "
        f"over the batch. Every panel has its own scale. {_absent(cells)}{left}"
    ) + style.evidence(cells)
    best = measured.sort_values("mean").groupby("label", sort=False).tail(1).sort_values("label")
    highest = "; ".join(f"{row.label}: {LOSSES[row.loss]} {row.mean:.1f}" for row in best.itertuples())
    alt = f"Highest measured Dice: {highest}."
    return drawing, data[SETS], says, alt, *_sets_say(cells[~cells["data_label"].isin(missed)], tables)


def _absent(cells: pd.DataFrame) -> str:
    """Return the sentence on marks that are not there."""
    never = [name for loss, name in LOSSES.items() if loss not in set(cells["loss"])]
    some = "Where a panel has no mark of a loss, it has no value there"
    return f"{some}; none of the sets here was trained with {' or '.join(never)}. " if never else f"{some}. "


def _sets_say(cells: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return on how many sets Dice is ahead of CE and behind, and on how many that is shown; nothing where
    one of them was not trained.
    """
    gaps = points.gaps(cells, "ce", "dice@0.5")
    own = 100 * gaps.loc[gaps["loss"] == "dice", "mean"].dropna()
    if not len(own):
        return []
    ahead, behind = int((own > 1).sum()), int((own < -1).sum())
    # Whatever else was trained on a set takes part, so that no other figure says otherwise.
    variants = cells[points.VARIANT].drop_duplicates()
    whole = points.of_variants(points.of_parts(tables["cells"], *points.BOARD), variants)
    sure = points.shown(points.contests(whole, "dice@0.5", tables))
    shown = int(sure.loc[sure["loss"] == "dice", "shown"].sum())
    return [
        f"On {ahead} of {len(own)} public sets dice is ahead of cross-entropy by more than a point, on "
        f"{behind} behind; a difference is shown on {shown}"
    ]


def published() -> pd.DataFrame:
    """Return the published values (label, loss, mean in percent, source) of ``experiments/published.csv``."""
    from lossbench.analysis.claims import default_file

    specs = {name: spec for spec, name in LOSSES.items()}
    table = pd.read_csv(default_file().with_name("published.csv"))
    table = table.assign(loss=table["loss"].map(specs), source="published").dropna(subset=["loss", "dice"])
    return table.rename(columns={"data": "label", "dice": "mean"})[["label", "loss", "mean", "source"]]


def _compared(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the cells of these losses on real data sets that at least two of them were trained on."""
    kept = real(points.of_parts(tables["cells"], *points.PUBLIC), tables.get("datasets"))
    kept = kept[kept["loss"].isin(LOSSES)]
    return kept[kept.groupby(points.VARIANT, observed=True)["loss"].transform("nunique") > 1]


def _panel(axis, part: pd.DataFrame, looks: dict, learnt: bool) -> None:
    for x, (loss, look) in enumerate(looks.items()):
        for row in part[part["loss"] == loss].itertuples():
            # Published values come without interval: NaN draws nothing.
            axis.vlines(x, row.low, row.high, color=look["color"], linewidth=1.4, zorder=2)
            fill = {} if learnt else {"markerfacecolor": style.PAPER}
            # A score of zero lies on the frame.
            axis.plot([x], [row.mean], **look | fill, zorder=3, clip_on=False)
    axis.set_xlim(-0.6, len(looks) - 0.4)
    axis.set_xticks([])
    # No bar is cut, and no score lies below zero.
    style.span(axis, part, LEAST)
    axis.set_ylim(bottom=max(axis.get_ylim()[0], 0.0))
    axis.yaxis.get_major_locator().set_params(nbins=5, integer=True)


# What a pixel of a mask is, over the grey image: colours that stay apart for the colour-blind.
ERRORS = {
    "true positive": "#3f7fd6",
    "false positive": "#e8a13a",
    "false negative": "#c9509b",
    "wrong class": "#4aa35b",
}

VEIL = 0.5  # how much of the image a colour covers

VOID = 255  # padding and unlabelled pixels


@figure("panel", number=2, title="One test image of each data set, and the mask that each loss leaves")
def panel(tables: Mapping[str, pd.DataFrame]):
    """Rows are data sets, columns image, truth and losses; colours say what is right and what is not."""
    rows = tables.get("panel")
    if rows is None or not len(rows):
        raise NothingToDraw(
            "needs the table 'panel', which `python -m tools.panel` makes by training a few cells again"
        )
    # In the order in which the pictures were made.
    sets = list(dict.fromkeys(rows["data_label"]))
    shown = list(dict.fromkeys(rows["shows"]))
    drawing, axes = style.canvas(len(sets), len(shown), 0.8 + 1.45 * len(sets))
    for y, name in enumerate(sets):
        _pictures(axes[y], rows[rows["data_label"] == name].set_index("shows"), shown)
        axes[y, 0].set_ylabel(style.fitting(name, 16), fontsize=8.5)
    for axis, name in zip(axes[0], shown, strict=True):
        axis.set_title(name, fontsize=8.5, loc="center")
    style.legend(drawing, [style.patch(name, tint, VEIL) for name, tint in ERRORS.items()], len(ERRORS))
    says = (
        "Numbers: Dice of this image, as recorded. The image is chosen by a rule: the median of the test "
        "images that hold every class, by their mean Dice over the losses shown (first seed, last weights, "
        "threshold 0.5). Shown is the window around the true object; blue is right, orange marked too much, "
        "pink missed, green another class. The authors' own panel (Cityscapes; images not redistributable) "
        "gives for motorcycle, rider and bus: CE .58, .54, .70; Dice .31, .55, .49; CE + Dice .70, .53, .44; "
        "CE + L1 .77, .69, .81 (read off their image). "
    ) + _evidence(tables["cells"], rows)
    data = rows.drop(columns="pixels").reset_index(drop=True)
    scores = []
    for name, part in data[data["loss"] != ""].groupby("data_label", sort=False):
        scores.append(f"{name}: " + ", ".join(f"{row.shows} {row.dice:.2f}" for row in part.itertuples()))
    alt = f"Masks of each loss beside the truth. Dice, {'; '.join(scores)}."
    return drawing, data, says, alt, *_masks_say(data[data["loss"] != ""])


def _masks_say(data: pd.DataFrame) -> list[str]:
    """Return on which image the losses differ most, as far as one image of one seed may say."""
    spread = data.groupby("data_label", sort=False)["dice"].agg(lambda dice: dice.max() - dice.min())
    if not len(spread) or not spread.max() > 0:
        return []
    own = data[data["data_label"] == spread.idxmax()].sort_values("dice")
    low, high = own.iloc[0], own.iloc[-1]
    return [
        f"One image each: losses differ most on {spread.idxmax()}, from {low['dice']:.2f} ({low['shows']}) "
        f"to {high['dice']:.2f} ({high['shows']})"
    ]


def _evidence(cells: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return the evidence of the cells that were trained again: one seed of each data set and loss shown."""
    # Pictures of an older table are all of seed 0, of the only recipe of their data set.
    shown = cells["dataset"].isin(rows["dataset"]) & cells["loss"].isin(rows["loss"])
    shown &= cells["seed"].isin(rows.get("seed", [0]))
    shown &= cells["recipe"].isin(rows.get("recipe", cells["recipe"]))
    own = points.of_parts(cells[shown], *points.LADDER, *points.PUBLIC)
    return style.evidence(own) if len(own) else ""


def _pictures(axes: np.ndarray, part: pd.DataFrame, shown: list[str]) -> None:
    """Draw one image, its truth and its masks, each in one axis; one that was not kept stays blank."""
    grey, truth = picture(part.loc["image"]), picture(part.loc["truth"])
    void = truth == VOID
    truth = np.where(void, 0, truth)
    # A rare object would be a few pixels in the whole picture.
    window = crop(truth)
    for axis, name in zip(axes, shown, strict=True):
        style.bare(axis)
        # A loss that was not trained on this set.
        if name not in part.index:
            continue
        axis.imshow(grey[window], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        if name != "image":
            # What lies on void pixels is scored nowhere, and not shown.
            mask = np.where(void, 0, picture(part.loc[name]))[window]
            for where, tint in zip(errors(mask, truth[window]), ERRORS.values(), strict=True):
                axis.imshow(_tinted(where, tint), interpolation="nearest")
        value = part.loc[name, "dice"]
        if np.isfinite(value):
            axis.set_xlabel(f"{value:.2f}", fontsize=8.5, labelpad=2)


def errors(mask: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return where a mask of class ids is right, too much, missing, and of another class than the truth."""
    marked, there = mask > 0, truth > 0
    return (
        there & (mask == truth),
        marked & ~there,
        there & ~marked,
        marked & there & (mask != truth),
    )


def _tinted(mask: np.ndarray, tint: str) -> np.ndarray:
    """Return a picture (height, width, 4) of one colour where the mask is true, clear elsewhere."""
    colour = [int(tint[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return np.dstack([np.full(mask.shape, c) for c in colour] + [VEIL * mask])


def picture(row: pd.Series) -> np.ndarray:
    """Return a stored picture as uint8 (height, width)."""
    return np.frombuffer(row["pixels"], np.uint8).reshape(int(row["height"]), -1)


def crop(truth: np.ndarray, least: int = 24) -> tuple[slice, slice]:
    """Return the square window around the true object, half as wide again; the whole image without one."""
    inside = np.argwhere(truth > 0)
    if not len(inside):
        return slice(None), slice(None)
    low, high = inside.min(0), inside.max(0) + 1
    side = min(max(int(1.5 * (high - low).max()) + 4, least), *truth.shape)
    first = np.clip((low + high - side) // 2, 0, np.array(truth.shape) - side)
    return slice(first[0], first[0] + side), slice(first[1], first[1] + side)
