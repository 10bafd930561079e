"""The exact p(class | image) of a scene: places summed by FFT, contents of tiles by counting."""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from lossbench.data.shapes import Family

CHUNK = 32  # tiles at a time, so that the scores of all templates stay in the CPU's cache


def evidence(tiles: np.ndarray, kind: Family, level: float, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return what tiles (B, *tile) say about holding one object of a kind.

    - (B,) float64: log p(tile | it holds one such object) - log p(tile | it holds nothing);
    - (B, *tile) float32: p(pixel labelled | tile holds one).

    With x = level * appearance + noise * white Gaussian, template t at place c has the log likelihood ratio
    (level <x, a_tc> - level^2 |a_t|^2 / 2) / noise^2; places are uniform, templates have their prior weight.
    """
    parts = [_evidence(tiles[at : at + CHUNK], kind, level, noise) for at in range(0, len(tiles), CHUNK)]
    logs, inside = zip(*parts, strict=True)
    return np.concatenate(logs), np.concatenate(inside)


def _evidence(tiles, kind, level, noise):
    # Both sums run over all places at once as correlations: cyclic, yet exact, since no allowed place wraps.
    axes = tuple(range(1, tiles.ndim))
    each = (-1, *[1] * len(axes))  # one number a tile, to be combined with its pixels
    exact = np.float32 if noise >= 0.3 * abs(level) else np.float64
    spectrum = fft.rfftn(tiles.astype(exact), axes=axes)
    best = np.full(len(tiles), -np.inf)
    scores = []
    for t in range(len(kind.weight)):
        box = kind.appearance[t].astype(exact)
        template = fft.rfftn(box, kind.tile)
        inner = fft.irfftn(spectrum * template.conj(), kind.tile, axes=axes)
        room = tuple(slice(0, r) for r in kind.room(t))
        score = inner[(slice(None), *room)] * (level / noise**2)
        prior = np.log(kind.weight[t] / kind.room(t).prod())
        score += prior - level**2 * float((box**2).sum()) / (2 * noise**2)
        scores.append(score)
        best = np.maximum(best, score.max(axis=axes))
    total = np.zeros(len(tiles))
    labelled = np.zeros(spectrum.shape, spectrum.dtype)
    for t, score in enumerate(scores):
        np.subtract(score, best.reshape(each).astype(score.dtype), out=score)
        np.exp(score, out=score)
        total += score.sum(axis=axes, dtype=np.float64)
        label = kind.probability[t].astype(score.dtype)
        labelled += fft.rfftn(score, kind.tile, axes=axes) * fft.rfftn(label, kind.tile)
        scores[t] = None  # the memory is needed
    inside = fft.irfftn(labelled, kind.tile, axes=axes) / total.reshape(each)
    return best + np.log(total), np.clip(inside, 0, 1).astype(np.float32)


def assignment(logs: np.ndarray, counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the log evidence (B,) of a random arrangement over tiles, and p(tile j holds t) (B, M, T).

    ``logs`` (B, M, T): log evidence of tile j under content t; ``counts``: how many tiles hold each content,
    summing to M; every arrangement is equally likely. Forward and backward sums run over the states "how many
    of each content are used".
    """
    batch, tiles, kinds = logs.shape
    forward = [{(0,) * kinds: np.zeros(batch)}]
    for j in range(tiles):
        forward.append(_step(forward[-1], logs[:, j], counts))
    # Only states from which the end can be reached get an entry.
    backward: list[dict] = [{} for _ in range(tiles)] + [{tuple(counts): np.zeros(batch)}]
    for j in reversed(range(tiles)):
        for state in forward[j]:
            terms = [logs[:, j, t] + backward[j + 1][end] for t, end in _next(state, counts, backward[j + 1])]
            if terms:
                backward[j][state] = np.logaddexp.reduce(terms, axis=0)
    total = forward[tiles][tuple(counts)]
    holds = np.zeros(logs.shape)
    for j in range(tiles):
        for state, before in forward[j].items():
            for t, end in _next(state, counts, backward[j + 1]):
                holds[:, j, t] += np.exp(before + logs[:, j, t] + backward[j + 1][end] - total)
    arrangements = math.factorial(tiles) // math.prod(map(math.factorial, counts))
    return total - np.log(float(arrangements)), holds


def _step(states: dict, logs: np.ndarray, counts: tuple[int, ...]) -> dict:
    """Return the states after one more tile, each with the sum of all ways that lead to it."""
    terms: dict[tuple, list] = {}
    for state, value in states.items():
        for t, end in _next(state, counts):
            terms.setdefault(end, []).append(value + logs[:, t])
    return {state: np.logaddexp.reduce(values, axis=0) for state, values in terms.items()}


def _next(state: tuple[int, ...], counts: tuple[int, ...], allowed=None):
    """Yield (content, state afterwards) for each content that is not used up, if the state is allowed."""
    for t, (used, most) in enumerate(zip(state, counts, strict=True)):
        end = (*state[:t], used + 1, *state[t + 1 :])
        if used < most and (allowed is None or end in allowed):
            yield t, end


def disturb(masks, posterior, expected, share: float, rng: np.random.Generator):
    """Erase a share of the foreground labels and set as many in the background at random.

    The posterior (or None) follows by the same matrix. ``expected``: fraction of each class.
    """
    gain = share * expected[1:] / expected[0]  # p(background pixel gets class k)
    uniform = rng.random(masks.shape, np.float32)
    added = np.searchsorted(np.cumsum(gain), uniform, side="right") + 1
    kept = np.where(uniform < share, 0, masks)
    spread = np.where(added <= len(gain), added, 0)
    noisy = np.where(masks > 0, kept, spread).astype(np.uint8)
    if posterior is not None:
        extra = posterior[:, :1] * gain.astype(np.float32).reshape(1, -1, *[1] * (masks.ndim - 1))
        foreground = posterior[:, 1:] * np.float32(1 - share) + extra
        posterior = np.concatenate([1 - foreground.sum(1, keepdims=True), foreground], 1)
    return noisy, posterior
