"""From a TOML file to cells."""
