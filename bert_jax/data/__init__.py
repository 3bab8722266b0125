"""From files to batches, in three rooms: `corpus`, `pretraining` and `labeled`."""
