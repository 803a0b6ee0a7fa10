"""What the host's kernel says of its vDPA devices."""
