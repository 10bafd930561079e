"""One builder a network."""
