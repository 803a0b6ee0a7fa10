"""What outlives the process: the guest's settings, for a back end that is started again."""
