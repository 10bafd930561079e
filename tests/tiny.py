"""The smallest experiment that trains something, which tests of whole sweeps begin from."""

TINY = """
name = "tiny"
seeds = 2
losses = ["ce", "dice"]
[[datasets]]
use = "scenes(foreground=0.1, noise=0.4, size=32, n_train=12, n_val=6, n_test=6)"
label = "tiny"
[recipe]
steps = 4
batch = 4
widths = [4, 8]
validations = 1
"""
