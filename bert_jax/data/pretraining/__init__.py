"""From a store to `batch_at(step)`: sentence pairs, packing, data order."""
