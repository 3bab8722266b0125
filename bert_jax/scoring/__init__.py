"""Predictions against labels: metrics in numpy and the field's libraries."""
