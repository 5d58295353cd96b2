"""HTTP: one file per noun. A route is its signature and one call; what is decided, is decided below."""
