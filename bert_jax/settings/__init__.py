"""What a run is told: typed settings, their checks, and the files they come from."""
