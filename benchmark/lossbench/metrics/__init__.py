"""Metrics of a segmentation: what is measured of every prediction, in numpy and scipy only."""

from lossbench.metrics.raters import agreement, closeness, shares
from lossbench.metrics.scoring import Scores, Scoring, Truth, evaluate, score_images
from lossbench.metrics.thresholds import ThresholdSearch, choose_threshold

__all__ = [
    "Scores",
    "Scoring",
    "ThresholdSearch",
    "Truth",
    "agreement",
    "choose_threshold",
    "closeness",
    "evaluate",
    "score_images",
    "shares",
]
