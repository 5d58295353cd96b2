"""What a run does: its lifecycle, the commands of clients, the loop that executes it, the journal of what happened."""
