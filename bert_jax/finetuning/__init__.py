"""A fine-tuning run: its examples, its task, its parts, and many of them at once."""
