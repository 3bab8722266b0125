"""What a trained model says of new texts, and the files of it."""
