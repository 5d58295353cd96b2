"""Who may come in, to which project, and how much each project may do."""
