"""From characters to ids: tokenizers, vocabularies and word boundaries."""
