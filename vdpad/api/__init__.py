"""What the APIs of our processes have in common: parameters, results, how they are described."""
