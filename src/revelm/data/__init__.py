"""How text becomes token rows and back: tokenizers, chat templates, readers of example files. No torch here."""
