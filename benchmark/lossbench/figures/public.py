"""Figure 1: five losses on real images, beside the values that others published for theirs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lossbench.figures import points, style
from lossbench.figures.drawing import NothingToDraw, figure

# What the published chart compares: our spec -> its name in experiments/published.csv.
LOSSES = {
    "ce": "ce",
    "dice": "dice",
    "dice_ce": "dice + ce",
    "ce + log_dice": "log dice + ce",
    "ce_l1": "ce + l1",
}

FAMILIES = {
    "ce": "distribution",
    "dice": "overlap",
    "dice_ce": "compound",
    "ce + log_dice": "compound",
    "ce_l1": "size",
}

LEAST = 6.0  # points that a panel spans at least, so that hair's breadths do not look like differences


@figure("public_sets", number=1, title="Five losses on public data sets: measured here, and published")
def public_sets(tables: Mapping[str, pd.DataFrame]):
    """Top: Dice of each public set, mean over seeds with interval; below: the published values of other sets,
    digitised.
    """
    cells = _real(points.of_parts(tables["cells"], "public"))
    if not len(cells) or "dice@0.5" not in cells:
        raise NothingToDraw(
            f"needs cells of public data sets and of at least two of the losses {', '.join(LOSSES)}"
        )
    measured = points.means(cells, "dice@0.5").merge(
        points.rarest_first(cells)[["dataset", "recipe", "label"]], on=["dataset", "recipe"]
    )
    for column in ("mean", "low", "high"):
        measured[column] = 100 * measured[column]
    data = pd.concat([measured.assign(source="measured"), published()], ignore_index=True)
    groups = [
        list(dict.fromkeys(points.rarest_first(cells)["label"])),
        list(dict.fromkeys(data.loc[data["source"] == "published", "label"])),
    ]
    columns = max(map(len, groups))
    drawing, axes = style.canvas(2, columns, 4.6)
    looks = style.lines(pd.DataFrame([{"loss": name, "family": family} for name, family in FAMILIES.items()]))
    for row, (source, labels) in enumerate(zip(("measured", "published"), groups, strict=True)):
        for axis, label in zip(axes[row], labels, strict=False):
            _panel(axis, data[(data["source"] == source) & (data["label"] == label)], looks)
            axis.set_title(style.fitting(label, 18))
        for axis in axes[row][len(labels) :]:
            axis.set_axis_off()
        axes[row][0].set_ylabel(f"Dice, % ({'here' if source == 'measured' else source})")
    _legend(drawing, looks)
    says = (
        "Top: mean Dice of the masks at 0.5 over test images, then classes, bars 95 % t intervals "
        "over seeds; the losses of a seed share start and "
        "batches, so that bars may overlap and the difference still be sure. Bottom: values that Liu "
        "et al. (2024) show for their networks and data "
        "sets, read off the radar chart in their repository to about 0.1; they come without "
        "intervals, which of their size terms 'ce + l1' stands "
        "for is not said, and the chart has no point for Dice on AMOS. Every panel has its own scale. "
    ) + style.evidence(cells)
    best = measured.sort_values("mean").groupby("label", sort=False).tail(1).sort_values("label")
    alt = (
        "Highest measured Dice: "
        + "; ".join(f"{r.label}: {LOSSES[r.loss]} {r.mean:.1f}" for r in best.itertuples())
        + "."
    )
    return drawing, data[["source", "label", "loss", "mean", "low", "high", "n"]], says, alt


def published() -> pd.DataFrame:
    """Return the published values (label, loss, mean in percent, source), read from
    ``experiments/published.csv``.
    """
    from lossbench.analysis.claims import default_file

    names = {name: spec for spec, name in LOSSES.items()}
    table = pd.read_csv(default_file().with_name("published.csv"))
    table = table.assign(loss=table["loss"].map(names)).dropna(subset=["loss", "dice"])
    return table.rename(columns={"data": "label", "dice": "mean"})[["label", "loss", "mean"]].assign(
        source="published"
    )


def _real(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of the five losses on data that were not generated, of data sets that at least two of
    them have.
    """
    made = cells.get("data.noise", pd.Series(float("nan"), index=cells.index)).notna() | (
        cells["dataset_name"] == "scenes"
    )
    kept = cells[~made & cells["loss"].isin(LOSSES)]
    several = kept.groupby(["dataset", "recipe"], observed=True)["loss"].transform("nunique") > 1
    return kept[several]


def _panel(axis, part: pd.DataFrame, looks: dict) -> None:
    for x, loss in enumerate(LOSSES):
        for row in part[part["loss"] == loss].itertuples():
            look = looks[loss] | {"linestyle": "", "markersize": 6}
            if row.low == row.low:
                axis.vlines(x, row.low, row.high, color=look["color"], linewidth=1.4, zorder=2)
            axis.plot([x], [row.mean], **look, zorder=3)
    axis.set_xlim(-0.6, len(LOSSES) - 0.4)
    axis.set_xticks([])
    low, high = part["mean"].min(), part["mean"].max()
    # Intervals are shown in full unless they would more than double the span of the means.
    spare = max(high - low, LEAST) / 2
    low, high = (
        max(part[["low", "mean"]].min(axis=None), low - spare),
        min(part[["high", "mean"]].max(axis=None), high + spare),
    )
    reach = max(high - low, LEAST) * 0.62
    axis.set_ylim((low + high) / 2 - reach, (low + high) / 2 + reach)
    axis.yaxis.get_major_locator().set_params(nbins=5, integer=True)


def _legend(drawing, looks: dict) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], **(looks[loss] | {"linestyle": "", "markersize": 6}), label=name)
        for loss, name in LOSSES.items()
    ]
    drawing.legend(handles=handles, loc="outside upper center", ncols=len(handles))


# --- What the masks look like: one test image of each data set, the truth, and what each loss made of it.

TINTS = ("#e8a13a", "#3f7fd6", "#c9509b", "#4aa35b")  # of the classes, over the grey image

VOID = 255  # padding and unlabelled pixels


@figure("panel", number=2, title="One test image of each data set, and the mask that each loss leaves")
def panel(tables: Mapping[str, pd.DataFrame]):
    """Rows are data sets, columns image, truth and losses; the number under a mask is its Dice."""
    rows = tables.get("panel")
    if rows is None or not len(rows):
        raise NothingToDraw(
            "needs the table 'panel', which `python -m tools.panel` makes by training a few cells again"
        )
    sets = list(dict.fromkeys(rows["data_label"]))
    columns = list(dict.fromkeys(rows["shows"]))
    drawing, axes = style.canvas(len(sets), len(columns), 0.5 + 1.45 * len(sets))
    for y, name in enumerate(sets):
        part = rows[rows["data_label"] == name].set_index("shows")
        grey, truth = picture(part.loc["image"]), picture(part.loc["truth"])
        void = truth == VOID
        truth = np.where(void, 0, truth)
        window = crop(truth)
        for x, shows in enumerate(columns):
            axis = axes[y, x]
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(visible=False)
            for spine in axis.spines.values():
                spine.set_visible(False)
            if y == 0:
                axis.set_title(shows, fontsize=8.5, loc="center")
            if shows not in part.index:
                continue
            axis.imshow(grey[window], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            if shows != "image":
                mask = np.where(void, 0, picture(part.loc[shows]))[
                    window
                ]  # what stands outside the image is scored nowhere
                for kind in range(1, int(max(truth.max(), mask.max())) + 1):
                    tint = [int(TINTS[(kind - 1) % len(TINTS)][i : i + 2], 16) / 255 for i in (1, 3, 5)]
                    axis.imshow(
                        np.dstack([np.broadcast_to(c, mask.shape) for c in tint] + [0.75 * (mask == kind)]),
                        interpolation="nearest",
                    )
            value = part.loc[shows, "dice"]
            if np.isfinite(value):
                axis.set_xlabel(f"{value:.2f}", fontsize=8.5, labelpad=2)
        axes[y, 0].set_ylabel(style.fitting(name, 16), fontsize=8.5)
    says = (
        "Numbers: Dice of this image, as recorded. The image is chosen by a rule: the median of the "
        "test images that hold every class, by their "
        "mean Dice over the five losses (seed 0, last-step weights, threshold 0.5). Shown is the "
        "window around the true object, "
        "coloured by class. The authors' own panel (Cityscapes; images not redistributable) gives "
        "for motorcycle, rider and bus: CE .58, .54, .70; "
        "Dice .31, .55, .49; CE + Dice .70, .53, .44; CE + L1 .77, .69, .81 (read off their image)."
    )
    data = rows.drop(columns="pixels").reset_index(drop=True)
    scored = data[data["loss"] != ""]
    told = [
        f"{name}: " + ", ".join(f"{r.shows} {r.dice:.2f}" for r in part.itertuples())
        for name, part in scored.groupby("data_label", sort=False)
    ]
    return drawing, data, says, f"Masks of five losses beside the truth. Dice, {'; '.join(told)}."


def picture(row: pd.Series) -> np.ndarray:
    """Return a stored picture as uint8 (height, width)."""
    return np.frombuffer(row["pixels"], np.uint8).reshape(int(row["height"]), -1)


def crop(truth: np.ndarray, least: int = 24) -> tuple[slice, slice]:
    """Return the square window around the true object, half as wide again, inside the image; the whole image
    where there is no object.
    """
    inside = np.argwhere(truth > 0)
    if not len(inside):
        return slice(None), slice(None)
    low, high = inside.min(0), inside.max(0) + 1
    side = min(max(int(1.5 * (high - low).max()) + 4, least), *truth.shape)
    begin = [
        int(np.clip((a + b - side) // 2, 0, size - side))
        for a, b, size in zip(low, high, truth.shape, strict=True)
    ]
    return slice(begin[0], begin[0] + side), slice(begin[1], begin[1] + side)
