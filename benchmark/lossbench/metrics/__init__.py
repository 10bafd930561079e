"""Metrics of a segmentation: what is measured of every prediction, in numpy and scipy only."""

from lossbench.metrics.scoring import Scores, evaluate, score_images
from lossbench.metrics.thresholds import choose_threshold

__all__ = ["Scores", "choose_threshold", "evaluate", "score_images"]
