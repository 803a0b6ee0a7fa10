"""What a request may name as its destination."""
