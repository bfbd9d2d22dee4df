"""Problems in, scored trajectories out."""
