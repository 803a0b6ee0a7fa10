"""Sockets: what comes, what goes, and what is kept in bounds."""
