"""What the APIs of our processes have in common."""
