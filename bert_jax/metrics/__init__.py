"""Predictions compared with labels, and the tables and plots of it."""
