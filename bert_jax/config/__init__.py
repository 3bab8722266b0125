"""The configuration of a run: its groups, their checks, and the files it comes from."""
