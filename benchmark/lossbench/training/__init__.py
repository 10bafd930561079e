"""From jobs to results: a stack of cells from the identical start; no files, no printing."""
