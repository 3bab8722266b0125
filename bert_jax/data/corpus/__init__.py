"""Documents to a store: sources, sentences, tokenization, shards."""
