"""Loops: fetch samples, step the optimiser, save, resume."""
