"""Varlink, served, whatever the interface is."""
