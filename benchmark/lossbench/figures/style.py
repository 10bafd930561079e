"""How every figure looks: one colour a family of losses, safe for the colour-blind, on white and on black."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd

INK, SOFT, RULE, PAPER = "#1c2430", "#5d6877", "#d5dae1", "#ffffff"

# Each pair: on white, on black. Told apart by lightness as well as by hue; line style and marker repeat what
# colour says.
FAMILIES = {
    "distribution": ("#0b63b8", "#6fb5ff"),
    "overlap": ("#c4480a", "#ff9a5a"),
    "compound": ("#7a44b0", "#c9a2f5"),
    "size": ("#0c7d57", "#4fd0a2"),
    "boundary": ("#a82a70", "#f48cc2"),
    "calibration": ("#806300", "#dfbf4a"),
    "topology": ("#0b7480", "#5ccedb"),
}

OTHER = ("#535c69", "#aeb7c3")

# Text inside coloured fields: other values than ink and paper, since those follow the reader's theme and the
# fields do not. As far apart as can be, since one of them must be read on every grey.
ON_LIGHT, ON_DARK = "#020202", "#fefefe"

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

BROKEN = (0, (4, 1.6))  # the line of open marks

DASHES = (
    "-",
    (0, (5, 1.5)),
    (0, (1.5, 1.2)),
    (0, (6, 1.5, 1.5, 1.5)),
    (0, (8, 3)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (1, 2.5)),
)

# The order in which losses are shown; those that are not named here follow by family and label.
FIRST = (
    "ce",
    "dice",
    "batch dice",
    "batch_dice",
    "dice_ce",
    "ce + log_dice",
    "wce",
    "wce(power=0.5)",
    "focal",
    "ce_l1",
    "ce_kl",
    "tversky",
    "generalized_dice",
)

# Every figure has the width of the page, so that letters are equally large in all of them.
WIDTH = 9.6  # inches: the text width of the report at 100 dots an inch


# What another recipe changes, in words: parts of its name, and what they are called.
ASIDE = {
    r"\blearning_rate own\b": "each loss's own rate",
    r"\blearning_rate ": "rate ",
    r"\bbatch (?=\d)": "batch size ",
    r"\boptimizer ": "optimiser ",
    r"\baugment none\b": "no augmentation",
    r"\baugment ": "augmentation ",
}

# Settings of matplotlib; nothing global is changed, see applied().
RULES = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": PAPER,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "errorbar.capsize": 0,
    "svg.fonttype": "none",
    "path.simplify": True,
    "axes.unicode_minus": True,
}


@contextmanager
def applied(salt: str) -> Iterator[None]:
    """Draw in the house style; ``salt`` makes the ids inside an SVG the same each time, and its own."""
    import matplotlib

    with matplotlib.rc_context(RULES | {"svg.hashsalt": salt}):
        yield


def canvas(rows: int, columns: int, height: float, width: float = WIDTH, **options):
    """Return a figure with a grid of axes, laid out without overlap; no global state is touched."""
    drawing = _blank(width, height)
    return drawing, drawing.subplots(rows, columns, squeeze=False, **options)


def grid(rows: int, columns: int, height: float, width: float = WIDTH, **options):
    """Return a figure and an empty grid, for panels of several sizes."""
    drawing = _blank(width, height)
    return drawing, drawing.add_gridspec(rows, columns, **options)


def rows(heights: Sequence[float], height: float, width: float = WIDTH):
    """Return a figure and one sub-figure a row, each laid out by itself."""
    drawing = _blank(width, height)
    return drawing, drawing.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]


def _blank(width: float, height: float):
    # Imported late: the command line lists figures without matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawing)
    return drawing


def shape(panels: int, widest: int) -> tuple[int, int]:
    """Return rows and columns for so many panels, at most ``widest`` in a row, with as few empty places as
    can be.
    """
    # As many rows as needed, then as few columns as these allow.
    rows = -(-panels // widest)
    return rows, -(-panels // rows)


def hide_rest(axes: np.ndarray, panels: int) -> None:
    """Hide the axes of a grid that no panel fills, and tick the lowest panel of every column."""
    for place, axis in enumerate(axes.flat):
        if place >= panels:
            axis.set_axis_off()
        elif place + axes.shape[1] >= panels:
            axis.tick_params(labelbottom=True)


def colour(family: str) -> str:
    """Return the colour of a family of losses (on white)."""
    return FAMILIES.get(family, OTHER)[0]


def ordered(cells: pd.DataFrame) -> pd.DataFrame:
    """Return one row a loss (loss, loss_label, family), in the order in which losses are shown everywhere."""
    losses = cells[["loss", "loss_label", "family"]].drop_duplicates("loss")
    return (
        losses.assign(rank=_rank(losses))
        .sort_values(["rank", "family", "loss_label"])
        .drop(columns="rank")
        .reset_index(drop=True)
    )


def _rank(losses: pd.DataFrame) -> pd.Series:
    """Return the place of each loss in FIRST, and behind its end for the others."""
    # A label wins over a spec: "batch dice" is how people call it.
    place = {name: i for i, name in enumerate(FIRST)}
    return losses["loss_label"].map(place).fillna(losses["loss"].map(place)).fillna(len(place))


def lines(losses: pd.DataFrame) -> dict[str, dict]:
    """Return marker, dash and colour of every loss: colour says the family; dash and marker differ between
    neighbours, so that lines which lie on each other are both seen. A loss of FIRST looks alike in all
    figures.
    """
    rank = _rank(losses).astype(int)
    others = rank == len(FIRST)
    rank += (others.cumsum() - 1).where(others, 0)
    return {
        row.loss: {"color": colour(row.family)} | mark(place)
        for place, row in zip(rank, losses.itertuples(), strict=True)
    }


def mark(place: int) -> dict:
    """Return marker and dash of the loss at a place."""
    # Dashes begin one later in each round, so that no two losses of a family share one in FIRST; of two dozen
    # losses no two share both.
    dash = place + place // len(DASHES)
    return {"marker": MARKERS[place % len(MARKERS)], "linestyle": DASHES[dash % len(DASHES)]}


def look(loss: str, family: str) -> dict:
    """Return marker, dash and colour of a loss of FIRST, as ``lines`` has them."""
    return {"color": colour(family)} | mark(FIRST.index(loss))


def key(label: str, **look):
    """Return an entry of a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **look)


def patch(label: str, color: str, alpha: float):
    """Return an entry of a legend for a coloured field."""
    from matplotlib.patches import Patch

    return Patch(facecolor=color, alpha=alpha, label=label)


def legend(drawing, handles: Sequence, most: int) -> None:
    """Put a legend above the panels, with at most so many entries in a row."""
    drawing.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), most))


def loss_legend(drawing, losses: pd.DataFrame, looks: dict, others: Sequence = (), most: int = 8) -> None:
    """Put a legend above the panels that says how each loss is drawn; other entries follow."""
    handles = [key(row.loss_label, **looks[row.loss], markersize=5) for row in losses.itertuples()]
    legend(drawing, [*handles, *others], most)


def family_legend(drawing, losses: pd.DataFrame, others: Sequence = ()) -> None:
    """Put a legend above the panels that says which losses each colour stands for; other entries follow."""
    dot = {"marker": "o", "linestyle": "", "markersize": 5}
    handles = []
    for family, part in losses.groupby("family", sort=False, observed=True):
        handles.append(key(fitting(", ".join(part["loss_label"]), 64), color=colour(family), **dot))
    legend(drawing, [*handles, *others], 4)


def sizes_legend(drawing, others: Sequence = ()) -> None:
    """Put a legend above the panels of hard (filled) and soft (open) region sizes; other entries follow."""
    dot = {"color": SOFT, "marker": "o", "markersize": 5}
    open_dot = {**dot, "linestyle": BROKEN, "markerfacecolor": PAPER}
    handles = [key("mask at 0.5 (hard)", **dot), key("summed probability (soft)", **open_dot)]
    legend(drawing, [*handles, *others], 5)


def whiskers(axis, y: float, row, color: str) -> None:
    """Draw a mean with its interval (``mean``, ``low``, ``high``) in a row of its own."""
    axis.hlines(y, row.low, row.high, color=color, linewidth=1.3, zorder=2)
    axis.plot([row.mean], [y], "o", color=color, markersize=5, zorder=4)


def arrows(axis, y: float, low: float, high: float, limits: tuple[float, float], color: str) -> None:
    """Put an arrow head at each end of the axis that an interval goes beyond."""
    look = {"color": color, "markersize": 6, "clip_on": False, "zorder": 4}
    if low < limits[0]:
        axis.plot([limits[0]], [y], "<", **look)
    if high > limits[1]:
        axis.plot([limits[1]], [y], ">", **look)


def names(axis, labels: Sequence[str], letters: int = 20) -> None:
    """Make the y axis one of names, the first on top."""
    axis.set_yticks(range(len(labels)), [fitting(label, letters) for label in labels])
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)


def slanted(axis, labels: Sequence[str]) -> None:
    """Write the names of columns at a slant, so that long ones do not run into each other."""
    axis.set_xticklabels(labels, rotation=30, ha="right", rotation_mode="anchor")


def bare(axis) -> None:
    """Take ticks, grid and frame from an axis."""
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def folded(value: float) -> float:
    """Return sign(v) log(1 + |v|): points of half and of fifty find a colour of their own on one scale."""
    return float(np.sign(value) * np.log1p(abs(value)))


# The lower end of a scale from 0 to 1, so that 0 is not quite the colour of paper: a page turns paper dark
# where its reader prefers that, and a field of zero would look like one of the largest value.
LIGHTEST = -0.01


def heat(
    axis,
    values: pd.DataFrame,
    texts: pd.DataFrame,
    colours: str,
    low: float,
    high: float,
    bold: pd.DataFrame | None = None,
) -> None:
    """Draw a table as coloured fields, its first row on top, each with its text; a value that is missing
    stays blank. ``bold``: of which fields the text is.
    """
    import matplotlib

    colormap = matplotlib.colormaps[colours]
    rows, columns = values.shape
    # Beyond the ends of the scale the colour stays; the number in the field does not.
    scaled = np.clip((values.to_numpy(float) - low) / (high - low), 0, 1)
    axis.pcolormesh(
        np.ma.masked_invalid(scaled), cmap=colormap, vmin=LIGHTEST, vmax=1, edgecolors=PAPER, linewidth=1.5
    )
    for i in range(rows):
        for j in range(columns):
            if np.isfinite(scaled[i, j]):
                # The letters that part more from their field.
                field = luminance(colormap(scaled[i, j])[:3])
                ink = max((ON_LIGHT, ON_DARK), key=lambda own, field=field: contrast(luminance(own), field))
                weight = "bold" if bold is not None and bold.iloc[i, j] else "normal"
                look = {"ha": "center", "va": "center", "fontsize": 8.5, "color": ink, "weight": weight}
                axis.text(j + 0.5, i + 0.5, texts.iloc[i, j], **look)
    axis.set_xlim(0, columns)
    axis.set_ylim(rows, 0)
    axis.set_xticks(np.arange(columns) + 0.5, [_text(name) for name in values.columns])
    axis.set_yticks(np.arange(rows) + 0.5, [_text(name) for name in values.index])
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def luminance(colour: object) -> float:
    """Return the relative luminance of a colour, 0 of black to 1 of white (WCAG 2)."""
    from matplotlib.colors import to_rgb

    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: float, other: float) -> float:
    """Return the contrast of two luminances, 1 to 21; text needs 4.5 (WCAG 2)."""
    low, high = sorted((one, other))
    return (high + 0.05) / (low + 0.05)


def _text(name: object) -> str:
    return f"{name:g}" if isinstance(name, int | float) else str(name)


def percent(fraction: float) -> str:
    """Return a fraction as text in percent with as many digits as it needs: .002 -> "0.2 %", at most two
    digits.
    """
    return f"{100 * fraction:.2g} %" if fraction < 0.995 else f"{100 * fraction:,.0f} %"


def times(factor: float) -> str:
    """Return a factor as text: one decimal below ten, none above."""
    return f"{factor:.1f}" if factor < 10 else f"{factor:,.0f}"


def signed(value: float, digits: int) -> str:
    """Return a number as text with its sign, the minus as long as the plus; zero has none."""
    text = f"{value:+.{digits}f}"
    return (text if float(text) else text[1:]).replace("-", "−")


def fitting(label: str, letters: int = 30) -> str:
    """Return a label that fits over a panel; what is cut stands in the numbers behind the figure."""
    return label if len(label) <= letters else label[: letters - 1] + "…"


def in_words(label: str) -> str:
    """Return the label of a data set variant as a reader would say it."""
    for pattern, words in ASIDE.items():
        label = re.sub(pattern, words, label)
    return label


def quoted(label: str) -> str:
    """Return a label as part of a sentence: one that holds a comma in quotes."""
    return f"'{label}'" if "," in label else label


def more(count: int, what: str, where: str) -> str:
    """Return the sentence that says how many of something stand elsewhere; empty for none."""
    if count < 1:
        return ""
    several = {"loss": "losses"}.get(what, f"{what}s") if count > 1 else what
    return f"{count} more {several} {'are' if count > 1 else 'is'} in {where}. "


def foreground_axis(axis, levels: Sequence[float]) -> None:
    """Make the x axis a logarithmic one of foreground fractions, ticked at the levels of a ladder if they are
    few and far apart.
    """
    axis.set_xscale("log")
    levels = sorted({x for x in levels if x > 0}) or [1.0]
    # Labels of near levels would overlap.
    apart = all(b / a > 1.5 for a, b in itertools.pairwise(levels))
    if len(levels) > 6 or not apart:
        round_ones = [m * 10.0**k for k in range(-6, 0) for m in (1, 2, 5)]
        levels = [x for x in round_ones if min(levels) / 1.6 <= x <= max(levels) * 1.6]
        levels = levels[:: max(1, -(-len(levels) // 6))]
    axis.set_xticks(levels, [percent(x).removesuffix(" %") for x in levels])
    axis.minorticks_off()
    # Never less than a decade: with one data set, the small shift between two marks of one fraction would
    # fill the axis.
    low, high = axis.get_xlim()
    middle, reach = np.sqrt(low * high), max(np.sqrt(high / low), np.sqrt(10.0))
    axis.set_xlim(middle / reach, middle * reach)


def log_axis(axis, values: Sequence[float], which: str) -> None:
    """Make an axis ("x" or "y") logarithmic around these values, over at least a factor of two, with a few
    plainly written ticks.
    """
    seen = np.asarray(values, dtype=float)
    seen = seen[np.isfinite(seen) & (seen > 0)]
    low, high = (seen.min(), seen.max()) if len(seen) else (0.1, 1.0)
    # At least a factor of two is shown, or noise would look like an effect.
    pad = max((high / low) ** 0.12, np.sqrt(2 / min(high / low, 2)), 1.15)
    low, high = low / pad, high * pad
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        ticks = [m * 10.0**k for k in range(-8, 6) for m in steps]
        ticks = [t for t in ticks if low <= t <= high]
        # One tick gives no scale.
        if len(ticks) > 1:
            break
    # Over many decades only powers of ten, else every second or third tick.
    if len(ticks) > 5:
        ticks = (
            [t for t in ticks if np.isclose(np.log10(t) % 1, (0, 1)).any()]
            if high / low > 1000
            else ticks[:: -(-len(ticks) // 5)]
        )
    set_scale, set_ticks, set_limits = (
        getattr(axis, f"set_{which}{what}") for what in ("scale", "ticks", "lim")
    )
    set_scale("log")
    set_ticks(ticks, [f"{t:g}".removeprefix("0") if t < 1 else f"{t:g}" for t in ticks])
    axis.minorticks_off()
    set_limits(low, high)


def span(axis, rows: pd.DataFrame, least: float) -> None:
    """Give the y axis room for every mean and every interval (``mean``, ``low``, ``high``), over at least
    ``least``: no bar is cut, and a hair's breadth does not look like a difference.
    """
    ends = rows[["mean", "low", "high"]].to_numpy(float)
    ends = ends[np.isfinite(ends)]
    low, high = (ends.min(), ends.max()) if len(ends) else (0.0, least)
    middle, reach = (low + high) / 2, max(high - low, least) * 0.55
    axis.set_ylim(middle - reach, middle + reach)


def unit_ticks(axis, which: str) -> None:
    """Tick an axis ("x" or "y") from 0 to 1 in quarters."""
    getattr(axis, f"set_{which}ticks")([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])


def ratio_axis(axis, low: float, high: float, step: int = 2) -> None:
    """Make the y axis one of size ratios, logarithmic and ticked at powers of ``step``: 1/4, 1/2, 1, 2, 4;
    where fewer than three of them fit, in even steps around 1: .9, 1, 1.1.
    """
    powers = [float(step) ** k for k in range(-8, 9)]
    finer = [[1 + k * width for k in range(-20, 60)] for width in (0.2, 0.1, 0.05, 0.02, 0.01)]
    for ticks in (powers, *finer):
        # A hair of tolerance keeps the ticks at the very ends.
        ticks = [t for t in ticks if low * 0.999 <= t <= high * 1.001]
        if len(ticks) > 2:
            break
    texts = [f"1/{round(1 / t)}" if t < 1 else f"{t:g}" for t in ticks]
    if not set(ticks) <= set(powers):
        texts = [f"{t:.2f}".rstrip("0").rstrip(".").removeprefix("0") for t in ticks]
    axis.set_yscale("log")
    axis.set_yticks(ticks, texts)
    axis.minorticks_off()
    axis.set_ylim(low, high)


def clipped(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the values brought inside [low, high], and which of them were outside."""
    inside = np.clip(values, low, high)
    return inside, inside != values


def evidence(cells: pd.DataFrame) -> str:
    """Return the sentence every caption ends with: cells, blocks, lengths, collapses, commit, device."""
    collapsed = int((cells["outcome"] == "collapsed").sum())
    # Losses and variants may have been trained with different numbers of seeds.
    seeds = cells.groupby(["dataset", "recipe", "loss"], observed=True)["seed"].nunique()
    span = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    each = f"{span} seed{'s' * int(seeds.max() > 1)} each"
    sets = cells["dataset"].nunique()
    variants = f"{sets} data set variant{'s' * int(sets > 1)}"
    # Heads, lengths, networks, ...: one data set under another recipe is not another data set.
    settings = len(cells[["dataset", "recipe"]].drop_duplicates())
    variants += f" in {settings} settings" if settings > sets else ""
    blocks = cells["block"].nunique()
    parts = [f"{len(cells)} cells in {blocks} block{'s' * int(blocks > 1)} ({variants}, {each})"]
    lengths = sorted(pd.to_numeric(cells.get("recipe.steps"), errors="coerce").dropna().unique())
    if lengths:
        # A study has two or three lengths; trials may have many.
        texts = [f"{steps:,.0f}" for steps in lengths]
        several = ", ".join(texts[:-1]) + f" and {texts[-1]}" if len(texts) > 1 else texts[0]
        shown = f"{texts[0]} to {texts[-1]}" if len(texts) > 3 else several
        parts.append(f"{shown} steps")
    if collapsed:
        parts.append(f"{collapsed} collapsed and scored as such")
    commits = sorted({str(c)[:8] for c in cells["commit"] if c})
    if commits:
        parts.append(("commit " if len(commits) == 1 else "commits ") + ", ".join(commits))
    devices = sorted({str(d) for d in cells["device"] if d})
    if devices:
        names = {"cpu": "CPU", "cuda": "GPU"}
        parts.append("on " + " and ".join(names.get(name, name) for name in devices))
    return "; ".join(parts) + "."
