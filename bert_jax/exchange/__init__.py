"""Models in and out: folders of any kind, starting from one, verifying, describing."""
