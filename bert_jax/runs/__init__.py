"""A run from its configuration: pretraining, fine-tuning, sweeps, suites."""
