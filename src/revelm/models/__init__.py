"""Weights to logits. Everything peculiar to a model family is declared in that family's file."""
