"""A store to `batch_at(step)`: pairs, packing, and the order of the data."""
