"""Metrics of a segmentation: what is measured of every prediction, in numpy and scipy only."""

from .scoring import evaluate, reliability, score_images
from .thresholds import choose_threshold

__all__ = ["choose_threshold", "evaluate", "reliability", "score_images"]
