"""From a name to a function: decorators, spec strings, source fingerprints, adapters of other libraries."""
