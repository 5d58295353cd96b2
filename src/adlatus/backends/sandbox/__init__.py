"""The code interpreter's sandboxes: what they are made of, and how they are prepared and run."""
