"""The nouns every other folder shares, and how names and files become objects. No torch here."""
