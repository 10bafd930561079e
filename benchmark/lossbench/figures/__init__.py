"""One module a theme; a figure is a pure function from tables to a drawing, and is found by itself."""
