"""Ten small models that make capture hard, one per file, each with a named function and a named method."""
