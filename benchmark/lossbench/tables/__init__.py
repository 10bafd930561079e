"""From records to long tables."""
