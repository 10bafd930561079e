"""docs/spellings.md, how each loss is spelled elsewhere: ``python -m tools.spellings`` (a test compares).

It is made from docs/parity.md, which holds what was measured; nothing is measured here.
"""

from __future__ import annotations

import re
from pathlib import Path

from lossbench.catalogue.registry import losses, parse_loss
from lossbench.catalogue.source import PACKAGE
from perf.peer_pairs import PAIRS

DOCS = PACKAGE.parents[1] / "docs"
PAGE = DOCS / "spellings.md"

# Libraries by the prefix of a spec; released code goes by its repository, and nnU-Net is one of these.
LIBRARIES = {"monai": "MONAI", "smp": "SMP", "kornia": "kornia", "torch": "torch"}
OF_TWO = {(pair.native, pair.peer) for pair in PAIRS if pair.classes == (2,)}
COLUMNS = (*LIBRARIES.values(), "nnU-Net", "authors' code")

HEAD = """# What you are really training with

Written by `python -m tools.spellings` from [parity.md](parity.md); do not edit. Find the class that you train
with now; the loss of the row is what it computes, or, where it stands as `... = spec`, that spec of the loss.
The number is the largest deviation that was measured, of the value (absolute) or of the gradient (relative to
its largest entry). `2 × X` means that ours is twice theirs. `+ 1` means that theirs is minus Dice.

Measured on targets without void pixels that hold every class, and equal there; `2 classes`: equal for two
alone. With void pixels, or a class that no pixel has, theirs may differ (SMP sets such a class to 0).

Of MONAI with `softmax=True` and a one-hot target, of SMP with `mode="multiclass"`; other settings that an
adapter adds stand in [losses.md](losses.md#losses-of-other-libraries). The losses whose names end in `_soft`
were given shares of the classes. The code of nnU-Net and of the authors was run once, at the commits that
parity.md names; its numbers are kept. Of classes that do not exclude each other nnU-Net's `DC_and_BCE_loss`
is `get_loss("dice_ce", multilabel=True)` ([cases.md](cases.md)). A dash: no counterpart was found to be
equal.
"""

# Losses of the libraries that have an adapter and are none of ours, and why.
SIGMOIDS = "its focal part is one sigmoid a class, each against all others"
EROSIONS = "a Hausdorff loss by erosions, of which there is none here"
ALONE = {
    "MONAI": {"DiceFocalLoss": SIGMOIDS, "GeneralizedDiceFocalLoss": SIGMOIDS},
    "SMP": {"FocalLoss": 'one sigmoid a class: `get_loss("focal", multilabel=True)` of a one-hot target'},
    "kornia": {"HausdorffERLoss": EROSIONS, "HausdorffERLoss3D": EROSIONS},
}


def rows(page: Path = DOCS / "parity.md") -> list[tuple[str, str, str, str]]:
    """Return (our spec, column, their spelling, deviation and limit) of each measured pair."""
    found = []
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) != 6 or not cells[0].startswith("`"):
            continue
        native, peer, _, value, gradient, note = cells
        # A metric has no gradient.
        gap = max((g for g in (value, gradient) if g != "-"), key=float)
        gap += ", 2 classes" if (native.strip("`"), peer.strip("`")) in OF_TWO else ""
        factor = re.match(r"native = (\w+) × peer", note)
        spelled = f"{factor[1]} × {_theirs(peer)}" if factor else _theirs(peer)
        found.append((native.strip("`"), _column(peer), spelled, gap))
    return found


def _column(peer: str) -> str:
    if peer.startswith("`"):
        return LIBRARIES[re.search(r"(\w+):", peer)[1]]
    return "nnU-Net" if peer.startswith("MIC-DKFZ/nnUNet@") else "authors' code"


def _theirs(peer: str) -> str:
    """Return their spelling: without the prefix of a library, and with the repository of released code."""
    if peer.startswith("`"):
        return re.sub(r"\b(monai|smp|kornia|torch):", "", peer)
    repository, _, what = peer.partition(": ")
    return what if repository.startswith("MIC-DKFZ/nnUNet@") else f"{what} of {repository.split('@')[0]}"


def markdown() -> str:
    """Return the page."""
    known = {name: entry for name, entry in losses().items() if entry.file.parent == PACKAGE / "losses"}
    measured = [row for row in rows() if not row[0].startswith("boundary_iou")]
    table = {name: {column: [] for column in COLUMNS} for name in sorted(known)}
    for native, column, theirs, gap in measured:
        (term,) = parse_loss(native).terms
        ours = "" if native == term.name else f" = `{native}`"
        table[term.name][column].append(f"{theirs}{ours} ({gap})")
    lines = [HEAD, f"| loss | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, cells in table.items():
        shown = ["<br>".join(cells[column]) or "-" for column in COLUMNS]
        lines.append(f"| [`{name}`](losses.md#{name}) | {' | '.join(shown)} |")
    alone = [name for name, cells in table.items() if not any(cells.values())]
    lines += [
        "",
        f"{len(known) - len(alone)} of {len(known)} losses have a counterpart that was run side by side. The "
        "others are held to their formula, written out slowly in the tests: " + ", ".join(alone) + ".",
        "",
        "Losses of segmentation in these libraries that no loss of the table is equal to:",
        "",
        *(f"- {library} `{name}`: {why}." for library, of in ALONE.items() for name, why in of.items()),
        "",
    ]
    return "\n".join(lines)


def write(page: Path = PAGE) -> None:
    """Write the page."""
    page.write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    write()
