"""What a run will need and cost, from the program compiled for its devices."""
