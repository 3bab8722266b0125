"""A trained model at work: `bert_jax.load`, vectors, predictions and their files."""
