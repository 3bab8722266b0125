"""The training loop and its parts; it does not depend on any model or task."""
