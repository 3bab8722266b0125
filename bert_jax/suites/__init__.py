"""Benchmarks of many tasks: where their data lies, and the table of them."""
