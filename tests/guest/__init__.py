"""A Linux guest that sets its own network devices up, and the migration streams it leaves."""
