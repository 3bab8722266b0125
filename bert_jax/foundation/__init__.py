"""What every room may import: files, signals, names of the hub, lines of a config."""
