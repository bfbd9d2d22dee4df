"""Everything this project claims about speed and learning, measured. Run ``python -m benchmarks.run``."""
