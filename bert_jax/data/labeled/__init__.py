"""From labeled files to examples, and from examples to `batch_at(step)`."""
