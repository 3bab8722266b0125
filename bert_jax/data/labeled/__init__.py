"""Labeled files to examples, and examples to `batch_at(step)`."""
