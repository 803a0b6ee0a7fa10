"""What the users of a process have of it beside each other: shares of what there is, and turns."""
