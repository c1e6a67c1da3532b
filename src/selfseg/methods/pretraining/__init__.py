"""Methods that learn a backbone from whole images or from pairs of places; baselines that others start from."""
