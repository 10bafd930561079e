"""What every room stands on: errors, seeds, atomic files, the list of columns."""
