"""What every room may import: files, signals, devices, the hub, lines of a config."""
