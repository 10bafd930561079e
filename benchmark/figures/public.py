"""Figure 1: five losses on real images, beside the values that others published for theirs."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from benchmark.figures import NothingToDraw, figure, parts, points, style

# What the published chart compares: our spec -> its name in experiments/published.csv.
LOSSES = {"ce": "ce", "dice": "dice", "dice_ce": "dice + ce", "ce + log_dice": "log dice + ce", "ce_l1": "ce + l1"}
FAMILIES = {"ce": "distribution", "dice": "overlap", "dice_ce": "compound", "ce + log_dice": "compound", "ce_l1": "size"}
LEAST = 6.0  # points that a panel spans at least, so that hair's breadths do not look like differences


@figure("public_sets", number=1, title="Five losses on public data sets: measured here, and published")
def public_sets(tables: Mapping[str, pd.DataFrame]):
    """Top: Dice of each public set, mean over seeds with interval; below: the published values of other sets, digitised."""
    cells = _real(parts.of_parts(tables["cells"], "public"))
    if not len(cells) or "dice@0.5" not in cells:
        raise NothingToDraw(f"needs cells of public data sets and of at least two of the losses {', '.join(LOSSES)}")
    measured = points.means(cells, "dice@0.5").merge(parts.rarest_first(cells)[["dataset", "recipe", "label"]], on=["dataset", "recipe"])
    for column in ("mean", "low", "high"):
        measured[column] = 100 * measured[column]
    data = pd.concat([measured.assign(source="measured"), published()], ignore_index=True)
    groups = [list(dict.fromkeys(parts.rarest_first(cells)["label"])), list(dict.fromkeys(data.loc[data["source"] == "published", "label"]))]
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
        "Top: mean Dice of the masks at 0.5 over test images, then classes, bars 95 % t intervals over seeds; the losses of a seed share start and "
        "batches, so that bars may overlap and the difference still be sure. Bottom: values that Liu et al. (2024) show for their networks and data "
        "sets, read off the radar chart in their repository to about 0.1; they come without intervals, which of their size terms 'ce + l1' stands "
        "for is not said, and the chart has no point for Dice on AMOS. Every panel has its own scale. "
    ) + style.evidence(cells)
    best = measured.sort_values("mean").groupby("label", sort=False).tail(1).sort_values("label")
    alt = "Highest measured Dice: " + "; ".join(f"{r.label}: {LOSSES[r.loss]} {r.mean:.1f}" for r in best.itertuples()) + "."
    return drawing, data[["source", "label", "loss", "mean", "low", "high", "n"]], says, alt


def published() -> pd.DataFrame:
    """Return the published values (label, loss, mean in percent, source), read from ``experiments/published.csv``."""
    from benchmark.analysis.claims import default_file

    names = {name: spec for spec, name in LOSSES.items()}
    table = pd.read_csv(default_file().with_name("published.csv"))
    table = table.assign(loss=table["loss"].map(names)).dropna(subset=["loss", "dice"])
    return table.rename(columns={"data": "label", "dice": "mean"})[["label", "loss", "mean"]].assign(source="published")


def _real(cells: pd.DataFrame) -> pd.DataFrame:
    """Return the cells of the five losses on data that were not generated, of data sets that at least two of them have."""
    made = cells.get("data.noise", pd.Series(float("nan"), index=cells.index)).notna() | (cells["dataset_name"] == "scenes")
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
    low, high = max(part[["low", "mean"]].min(axis=None), low - spare), min(part[["high", "mean"]].max(axis=None), high + spare)
    reach = max(high - low, LEAST) * 0.62
    axis.set_ylim((low + high) / 2 - reach, (low + high) / 2 + reach)
    axis.yaxis.get_major_locator().set_params(nbins=5, integer=True)


def _legend(drawing, looks: dict) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **(looks[loss] | {"linestyle": "", "markersize": 6}), label=name) for loss, name in LOSSES.items()]
    drawing.legend(handles=handles, loc="outside upper center", ncols=len(handles))
