"""Words on a command line to calls. Nothing imports this folder."""
