"""How a state is put back: plan, program, replay, report."""
