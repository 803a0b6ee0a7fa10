"""What the specification says."""
