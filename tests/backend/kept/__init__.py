"""What outlives a back end."""
