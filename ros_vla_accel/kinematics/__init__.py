"""Joint states to motion signals."""
