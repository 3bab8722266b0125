"""From documents to a store: sources, sentences, tokenization, shards."""
