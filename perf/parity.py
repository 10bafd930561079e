"""Write docs/parity.md: how far each native loss is from the same loss of another library, in value and
gradient.

python perf/parity.py            # the table (needs the extra 'peers')
python perf/parity.py --golden   # also freezes the peers' numbers in tests/golden/losses_peers.json
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import torch
from peer_pairs import PAIRS, Pair, discs, value_and_gradient

from lossbench.catalogue import adapters
from lossbench.catalogue.registry import parse_loss
from lossbench.metrics import evaluate

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/golden/losses_peers.json"
RELEASED = ROOT / "tests/golden/losses_released.json"


def deviations(pair: Pair) -> tuple[float, float, int]:
    """Return the largest deviation in value, in gradient (relative to its largest entry), and the number of
    cases.
    """
    value_gap, gradient_gap, cases = 0.0, 0.0, 0
    for classes in pair.classes:
        for axes in pair.axes:
            own, own_gradient = value_and_gradient(pair.native, classes, axes, pair.dtype, pair.shares)
            peer, peer_gradient = value_and_gradient(pair.peer, classes, axes, pair.dtype, pair.shares)
            scale = pair.scale(classes)
            value_gap = max(value_gap, float(abs(own - scale * peer)))
            gap = (own_gradient - scale * peer_gradient).abs().max() / (scale * peer_gradient.abs().max())
            gradient_gap, cases = max(gradient_gap, float(gap)), cases + 1
    return value_gap, gradient_gap, cases


def table() -> str:
    """Return docs/parity.md."""
    libraries = sorted(
        {term.library for pair in PAIRS for term in parse_loss(pair.peer.replace("{C}", "2")).terms}
    )
    versions = ", ".join(f"{name} {adapters.version(name)}" for name in libraries)
    lines = [
        "# Parity with other libraries",
        "",
        "Written by `perf/parity.py`; do not edit. Each native loss against the same loss of another "
        "library, called through its adapter,",
        "on the same logits and targets: 2 and 3 classes, 2-D and 3-D where the peer takes them, "
        "float32. *Value*: largest absolute",
        "deviation. *Gradient*: largest deviation, relative to the largest entry of the gradient. "
        "Tests hold values to 1e-5 relative plus",
        "1e-6 and gradients to 1e-5 (1e-4 where the peer itself loses digits).",
        "",
        f"Versions: {versions}.",
        "",
        "| native | peer | cases | value | gradient | note |",
        "|---|---|---|---|---|---|",
    ]
    worst_value = worst_gradient = 0.0
    for pair in PAIRS:
        value_gap, gradient_gap, cases = deviations(pair)
        if pair.tolerance == 1e-5:
            worst_value, worst_gradient = max(worst_value, value_gap), max(worst_gradient, gradient_gap)
        note = pair.why if pair.factor == "1" else f"native = {pair.factor} × peer: {pair.why}"
        lines.append(
            f"| `{pair.native}` | `{pair.peer}` | {cases} | {value_gap:.1e} | {gradient_gap:.1e} | {note} |"
        )
    lines += [
        "",
        f"Largest of all at full tolerance: value {worst_value:.1e}, gradient {worst_gradient:.1e}.",
        "",
        *released(),
    ]
    return "\n".join(lines)


def released() -> list[str]:
    """Return the section on the code that was released with the papers, from what it once gave."""
    lines = [
        "## The code released with the papers",
        "",
        "Numbers that the authors' own code gave on the same inputs, frozen by `python -m tools.released` "
        "(which runs clones, and holds no code of",
        "theirs), beside ours of today. *Gradient*: largest deviation of six entries. The spelling on the "
        "left is what gives their number.",
        "",
        "| ours | released code | cases | value | gradient | note |",
        "|---|---|---|---|---|---|",
    ]
    for entry in json.loads(RELEASED.read_text()).values():
        native = entry["native"]
        what = f"{entry['code']}: `{entry['what']}` | {len(entry['cases'])}"
        gaps = [released_gap(native, case, frozen) for case, frozen in entry["cases"].items()]
        value, gradient = (f"{max(column):.1e}" for column in zip(*gaps, strict=True))
        gradient = "-" if native == "boundary_iou_released" else gradient
        lines.append(f"| `{native}` | {what} | {value} | {gradient} | {entry['note']} |")
    return [*lines, ""]


def released_gap(native: str, case: str, frozen: dict) -> tuple[float, float]:
    """Return how far we are from the frozen value, and from the frozen entries of the gradient."""
    if native == "boundary_iou_released":
        truth, prediction = discs(tuple(int(side) for side in case.split(" x ")))
        return abs(evaluate(prediction, truth, released=True)[native] - frozen["value"]), 0.0
    classes, axes = int(case.split()[0]), int(case.split()[2][0])
    value, gradient = value_and_gradient(native, classes, axes)
    entries = gradient.reshape(-1)[:: gradient.numel() // 6][:6]
    gap = (entries - torch.tensor(frozen["entries"])).abs().max() / frozen["largest"]
    return abs(float(value) - frozen["value"]), float(gap)


def golden() -> dict:
    """Return the peers' value, gradient mass and a few entries of the gradient for each pair and case."""
    frozen = {}
    for pair in PAIRS:
        for classes in pair.classes:
            for axes in pair.axes:
                value, gradient = value_and_gradient(pair.peer, classes, axes, pair.dtype, pair.shares)
                entries = gradient.reshape(-1)[:: gradient.numel() // 6][:6].double()
                frozen[f"{pair.native} | {pair.peer} | {classes} classes {axes}-D"] = {
                    "value": float(f"{float(value.double()):.9g}"),
                    "mass": float(f"{float(gradient.double().abs().sum()):.9g}"),
                    "largest": float(f"{float(gradient.double().abs().max()):.9g}"),
                    "entries": [float(f"{float(e):.9g}") for e in entries],
                }
    return frozen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--golden", action="store_true", help="also freeze the peers' numbers for the tests")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    (ROOT / "docs/parity.md").write_text(table(), encoding="utf-8")
    if arguments.golden:
        text = ",\n".join(f" {json.dumps(key)}: {json.dumps(entry)}" for key, entry in golden().items())
        GOLDEN.write_text("{\n" + text + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
