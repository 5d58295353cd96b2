"""How files become searchable and are found: parse, chunk, index, search. Knows no HTTP and nothing of runs."""
