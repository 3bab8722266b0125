"""Model folders of every format: opened, converted, verified, described."""
