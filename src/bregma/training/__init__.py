"""Planning and training."""
