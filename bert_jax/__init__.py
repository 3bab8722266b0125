"""Train your own BERT from raw text, fine-tune it, and carry it anywhere, in JAX."""
