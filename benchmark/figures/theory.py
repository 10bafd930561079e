"""Figures that need no training."""
