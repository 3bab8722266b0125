"""From files to batches: `corpus`, `pretraining` and `labeled`."""
