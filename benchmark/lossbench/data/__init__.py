"""Scenes with known truth, public sets and folders of your own, as whole images with masks and a split."""
