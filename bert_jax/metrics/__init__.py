"""Predictions against labels: metrics, and the reports and plots that show them."""
