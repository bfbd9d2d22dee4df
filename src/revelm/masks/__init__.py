"""Who may see whom: one visibility definition for training, decoding and tests."""
