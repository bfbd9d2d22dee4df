"""Trajectories and runs, drawn: self-contained HTML pages and static SVG pictures. No torch, no network."""
