"""What a request may name as its destination, and how each kind is reached."""
