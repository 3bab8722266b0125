"""One file a task: examples to arrays, head, loss, metric, predictions."""
