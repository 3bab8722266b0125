"""Predictions against labels: metrics, and the reports and plots that show them.

To add a metric, compute it where its kind is (`classes`, `entities`, `numbers`,
`spans`) and name it in the `metrics` of the tasks that have it; one that is better when
it is lower is also named in `scores.LOWER_IS_BETTER`.
"""
