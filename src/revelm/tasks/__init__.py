"""Which problems, how they are asked, and which rewards judge them: one file per task, no torch."""
