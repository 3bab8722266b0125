"""Stores built by many machines at once, with Apache Beam (extra `beam`)."""
