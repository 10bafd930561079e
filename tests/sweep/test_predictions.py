"""What a sweep keeps beside its records."""

from lossbench.sweep import predictions
from lossbench.sweep.train_stack import weights_of


def test_weights_of_another_experiment_stay(tmp_path):
    theirs = weights_of(tmp_path, "0" * 16)
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"weights")
    predictions.write(None, [], tmp_path, print, masks=False)
    assert theirs.read_bytes() == b"weights"
