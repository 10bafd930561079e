"""Metrics of a segmentation: what is measured of every prediction, in numpy and scipy only."""

from lossbench.metrics.scoring import evaluate, reliability, score_images
from lossbench.metrics.thresholds import choose_threshold

__all__ = ["choose_threshold", "evaluate", "reliability", "score_images"]
