"""The back end: one vDPA device behind one VMM, with a shadow of the guest's control queue."""
