"""How it is put back."""
