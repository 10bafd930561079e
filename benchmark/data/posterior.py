"""The exact p(class | image) of a scene: sum over every template and place by FFT, and over which tile holds what by
counting.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from benchmark.data.shapes import Family

CHUNK = 32  # tiles at a time, so that the scores of all templates stay in the processor's cache


def evidence(tiles: np.ndarray, kind: Family, level: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return log p(tile | it holds one object of this kind) - log p(tile | nothing) and p(pixel labelled | tile holds
    one).

    ``tiles`` (B, *tile). With x = level * appearance + noise * white Gaussian, template t at place c has the log
    likelihood ratio (level <x, a_tc> - level^2 |a_t|^2 / 2) / noise^2; places are uniform, templates have their prior
    weight. Both sums run over all places at once as correlations (cyclic, yet exact: no allowed place wraps). Shapes
    (B,) and (B, *tile), float64 and float32.
    """
    parts = [_evidence(tiles[at : at + CHUNK], kind, level, noise) for at in range(0, len(tiles), CHUNK)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _evidence(tiles, kind, level, noise):
    axes = tuple(range(1, tiles.ndim))
    exact = np.float32 if noise >= 0.3 * abs(level) else np.float64
    spectrum = fft.rfftn(tiles.astype(exact), axes=axes)
    count = len(kind.weight)
    best = np.full(len(tiles), -np.inf)
    scores = []
    for t in range(count):
        box = kind.appearance[t].astype(exact)
        template = fft.rfftn(box, kind.tile)
        inner = fft.irfftn(spectrum * template.conj(), kind.tile, axes=axes)
        room = tuple(slice(0, r) for r in kind.room(t))
        score = inner[(slice(None), *room)] * (level / noise**2)
        score += np.log(kind.weight[t] / kind.room(t).prod()) - level**2 * float((box**2).sum()) / (2 * noise**2)
        scores.append(score)
        best = np.maximum(best, score.max(axis=axes))
    total = np.zeros(len(tiles))
    labelled = np.zeros(spectrum.shape, spectrum.dtype)
    for t in range(count):
        score = scores[t]
        np.subtract(score, best.reshape(-1, *[1] * len(axes)).astype(score.dtype), out=score)
        np.exp(score, out=score)
        total += score.sum(axis=axes, dtype=np.float64)
        label = kind.probability[t].astype(score.dtype)
        labelled += fft.rfftn(score, kind.tile, axes=axes) * fft.rfftn(label, kind.tile)
        scores[t] = None
    inside = fft.irfftn(labelled, kind.tile, axes=axes) / total.reshape(-1, *[1] * len(axes))
    return best + np.log(total), np.clip(inside, 0, 1).astype(np.float32)


def assignment(logs: np.ndarray, counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the log evidence of a random arrangement of contents over tiles and the probability that tile j holds
    content t.

    ``logs`` (B, M, T) log evidence of tile j under content t; ``counts`` how many tiles hold each content, summing to
    M; every arrangement is equally likely. Forward and backward sums over the states "how many of each content are
    used". Shapes (B,), (B, M, T).
    """
    batch, tiles, kinds = logs.shape
    forward = [{(0,) * kinds: np.zeros(batch)}]
    for j in range(tiles):
        forward.append(_step(forward[-1], logs[:, j], counts))
    backward: list[dict] = [{} for _ in range(tiles)] + [{tuple(counts): np.zeros(batch)}]
    for j in range(tiles - 1, -1, -1):
        for state in forward[j]:
            terms = [logs[:, j, t] + backward[j + 1][after] for t, after in _after(state, counts) if after in backward[j + 1]]
            if terms:
                backward[j][state] = np.logaddexp.reduce(terms, axis=0)
    total = forward[tiles][tuple(counts)]
    arrangements = forward_count(counts)
    marginal = np.zeros(logs.shape)
    for j in range(tiles):
        for state, before in forward[j].items():
            for t, after in _after(state, counts):
                if after in backward[j + 1]:
                    marginal[:, j, t] += np.exp(before + logs[:, j, t] + backward[j + 1][after] - total)
    return total - np.log(arrangements), marginal


def forward_count(counts: tuple[int, ...]) -> float:
    """Return the number of distinct arrangements of the contents (a multinomial coefficient)."""
    result, used = 1, 0
    for count in counts:
        for i in range(1, count + 1):
            used += 1
            result = result * used // i
    return float(result)


def _after(state: tuple[int, ...], counts: tuple[int, ...]):
    for t, (used, allowed) in enumerate(zip(state, counts, strict=True)):
        if used < allowed:
            yield t, (*state[:t], used + 1, *state[t + 1 :])


def _step(states: dict, logs: np.ndarray, counts: tuple[int, ...]) -> dict:
    terms: dict[tuple, list] = {}
    for state, value in states.items():
        for t, after in _after(state, counts):
            terms.setdefault(after, []).append(value + logs[:, t])
    return {state: np.logaddexp.reduce(values, axis=0) for state, values in terms.items()}
