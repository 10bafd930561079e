"""Where tasks run, and what a person sees meanwhile."""
