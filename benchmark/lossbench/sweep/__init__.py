"""From an experiment to its records: plan, run, tune, verify."""
