"""What outlives the process: what the guest has set, and which addresses its device may show."""
