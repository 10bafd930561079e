"""docs/losses.md, written from what the losses say of themselves: ``python -m tools.losses_page`` (a test
compares).
"""

from __future__ import annotations

from pathlib import Path

from lossbench.catalogue.entries import Entry
from lossbench.catalogue.registry import losses
from lossbench.catalogue.source import PACKAGE
from tools import costs

PAGE = PACKAGE.parents[1] / "docs" / "losses.md"

FAMILIES = {
    "distribution": "one term per pixel",
    "overlap": "a predicted region against the true one",
    "size": "how large a region should be",
    "compound": "sums of both kinds",
    "boundary": "errors weighed by their distance from the boundary",
    "calibration": "cross-entropy with a term for honest confidence",
    "topology": "lines of thin structures, and connected objects one by one",
}

HEAD = """# The losses

Written by `python -m tools.losses_page` from the sources; do not edit. In an experiment or on the command
line a loss is named by a spec string: `dice`, `tversky(fp_weight=0.3, fn_weight=0.7)`, `0.5*ce + 0.5*dice`,
`monai:DiceFocalLoss(gamma=2)`. `lossbench check NAME` tests any of them on your machine. How they do on the
tests and options of MONAI, segmentation-models-pytorch, kornia and nnU-Net is in [cases.md](cases.md).

## Words and notation

Pixel i, class c of C, image b; p softmax probability, g one-hot target, y the true class. All sums run over
valid pixels: TP = Σ p g, P = Σ p, G = Σ g, FP = P - TP, FN = G - TP. Logits come as (N, C, *S) of any float
type and are computed in float32; one channel z means [0, z]. *S is of any number of axes, but for the losses
that name theirs.

| parameter | meaning |
|---|---|
| `over` | `"sample"`: sums over each image, then the mean of them; `"batch"`: sums over the whole batch |
| `classes` | which classes enter: `"fg"` all but class 0, `"all"`, or a list of class ids |
| `absent` | a class that is not in the image: `"eps"` keeps it, smoothed, in the mean, `"skip"` does not |
| `smooth` | added to numerator and denominator; a pair `[n, d]` sets them apart (not in `cosine` and `mcc`) |
| `ignore_index` | label of void pixels: no sum, no gradient; the data set supplies it |
| needs | `progress` (0 to 1), `distance_map` (negative inside), `class_frequency`: from the trainer |

Soft Dice has eight switches, and two "Dice losses" differ as soon as one does: linear or squared
denominator, sums per sample or per batch, which classes, one ratio per class or over all classes, the
smoothing and whether it is in the numerator, absent classes, the sign, the mean over the batch. Three
consequences:

- On an image without the class the gradient of Dice is s/(P+s)² per pixel: with s = 1e-5 the loss is 1 and
  the network learns nothing from it.
- With the background in the mean and two classes, a large background's term is nearly 0 and mostly halves
  the step; with absent classes it dilutes.
- A mean over classes or over present classes is another loss: the value falls or rises when classes are
  missing.

## In a training loop of your own

```python
from lossbench import get_loss

loss = get_loss("dice_ce")  # a torch.nn.Module: repr, pickle, deepcopy and torch.compile work
value = loss(logits, target, ignore_index=255)  # logits (N, C, *S), target (N, *S) of class ids
```

Classes that do not exclude each other have one sigmoid each: `get_loss("dice_ce", multilabel=True)` takes a
target (N, C, *S) of 0 and 1, and is the mean of the losses of the channels. Soft labels, of several raters
(`lossbench.metrics.shares`) or of another network, are shares (N, C, *S) of floats that sum to 1, or all 0
where void: `ce_soft`, `dice_soft` and `jaccard_soft` take them; of class ids they are `ce`, `dice` and
`jaccard`. A sweep trains them on [several raters](data.md#several-raters).

A wrong call gets one sentence (`UserError`): labels that are neither a class nor `ignore_index` ("label 255
with 2 classes: a 0/255 mask? divide by 255, or ignore_index=255 where 255 marks void pixels"), targets of
floats, shapes that do not belong together, images of other axes than the loss takes, numpy arrays, an empty
batch, unknown keywords. Types, shapes and keywords are looked at in each eager call. So are labels on a CPU,
but for a tensor that was read last and that torch did not change since; on a CUDA device an assertion is
queued, which fails when the device comes to it.
Nothing is looked at under `torch.compile`, and no label while a CUDA graph is captured. `get_loss(...,
check=False)` leaves the look out, as the suite's own training does: its data container checks each mask once.
What the logits hold under void pixels enters nothing, NaN included. An image that is void throughout has no
gradient, but a mean over images of a loss of regions counts it with what the smoothing makes of it (Dice: 0);
a mean over pixels, as that of `ce`, leaves it out, and so do `lovasz(over='sample')` and `absent='skip'`.
"""

COST = """Cost is the CPU time of a call on one thread, forward and backward, as a multiple of that of `ce`:
on logits (8, 2, 128, 128) and class ids, at the defaults, the look at types and shapes included. Distance
maps and class frequencies are data and not in it. The figures come from [the page on
speed](speed_losses.md), where `ce` beside itself came to {}: so exact are they. `lossbench check` times a
call on your machine."""

ADAPTERS = """## Losses of other libraries

`monai:NAME(...)`, `smp:NAME(...)`, `kornia:NAME(...)`, `torch:NAME(...)` take the library's own arguments
(`pip install 'lossbench[peers]'`), and `topolosses:NAME(...)` those of losses by persistent homology
(`pip install 'lossbench[topology]'`). The adapter sets activation, target format, mode and reduction,
computes in float32, and corrects what would be silently wrong:

| loss | what the adapter does |
|---|---|
| all of MONAI | `softmax=True` and a one-hot target; `ignore_index` only where the class has it |
| `monai:FocalLoss` | `use_softmax=True`; refuses `include_background=False`, which is 0 for two classes |
| | the same value with and without `ignore_index` |
| `monai:DiceFocalLoss`, `smp:FocalLoss` | allowed, with a warning: the focal part is one sigmoid per class |
| `monai:GeneralizedDiceFocalLoss` | likewise |
| `monai:AsymmetricUnifiedFocalLoss` | applies the softmax that the class leaves out; two classes only |
| `monai:BoundaryLoss` | `include_background=False` unless asked for, or the background dominates |
| `monai:GeneralizedWassersteinDiceLoss` | class ids as target, `dist_matrix` filled in |
| `monai:NACLLoss` | class ids as target, `classes` and `dim` filled in |
| all of SMP | `mode="multiclass"`, class ids as target |
| `smp:MCCLoss`, `smp:SoftBCEWithLogitsLoss` | foreground probability or margin; two classes only |
| `smp:SoftCrossEntropyLoss` | `smooth_factor=0.0` (its own default raises TypeError) |
| topolosses | `softmax=True` and a one-hot target, one process; void pixels are refused |
| | Betti matching, Hutopo, Topograph, warping, clDice; not `MosinLoss`, which downloads weights |
| kornia | mean reduction, `alpha=None` for focal losses, softmax for Hausdorff losses |
| | 2-D only where it says so |
"""


def markdown() -> str:
    """Return the page."""
    entries = [entry for entry in losses().values() if entry.file.parent == PACKAGE / "losses"]
    parts = [HEAD, _overview(entries)]
    for family, what in FAMILIES.items():
        members = sorted((e for e in entries if e.family == family), key=lambda e: e.name)
        parts.append(f"## {family.capitalize()}: {what}\n")
        parts.extend(_section(entry) for entry in members)
    return "\n".join([*parts, ADAPTERS])


def _overview(entries: list[Entry]) -> str:
    lines = [
        "## Overview",
        "",
        COST.format(costs.costs()[costs.UNIT]),
        "",
        "| loss | family | paper | cost | on empty images |",
        "|---|---|---|---|---|",
    ]
    order = list(FAMILIES)
    for entry in sorted(entries, key=lambda e: (order.index(e.family), e.name)):
        meta = entry.meta
        lines.append(
            f"| [`{entry.name}`](#{entry.name}) | {entry.family} | {meta['cite']} | {costs.cost_of(entry)} | "
            f"{meta['empty']} |"
        )
    return "\n".join([*lines, ""])


def _section(entry: Entry) -> str:
    meta = entry.meta
    tuned = meta.get("tune", {})
    lines = [f"### {entry.name}", "", f"`{meta['formula']}`", "", *entry.doc.splitlines(), ""]
    facts = [f"Paper: {meta['cite']}.", f"Empty images: {meta['empty']}."]
    if meta.get("released"):
        facts.append(f"Released code: {meta['released']}.")
    if entry.needs:
        facts.append(f"Needs: {', '.join(f'`{need}`' for need in entry.needs)}.")
    if meta.get("dims"):
        facts.append(f"Images: {', '.join(f'{axes}-D' for axes in meta['dims'])}.")
    if meta.get("aliases"):
        facts.append(f"Also called {', '.join(f'`{alias}`' for alias in meta['aliases'])}.")
    lines += ["  \n".join(facts), "", "| parameter | default | choices or range to tune |", "|---|---|---|"]
    for name, default in entry.params.items():
        allowed = ", ".join(f"`{value!r}`" for value in entry.choices.get(name, ()))
        span = f"{tuned[name][0]:g} to {tuned[name][1]:g}" if name in tuned else ""
        lines.append(f"| `{name}` | `{default!r}` | {allowed or span} |")
    return "\n".join([*lines, ""])


def write(page: Path = PAGE) -> None:
    """Write the page."""
    page.write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    write()
