"""Parts of the package that need their own extra and that few people need."""
