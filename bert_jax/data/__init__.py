"""From files to batches: corpora, stores, instances and streams."""
