"""Files: their rows and their bytes together. Knows neither HTTP nor what files are for."""
