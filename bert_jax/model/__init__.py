"""What BERT computes: parameters and arrays in, arrays out."""
