"""Scores as people look at them: tables, pictures, and the files of an evaluation."""
