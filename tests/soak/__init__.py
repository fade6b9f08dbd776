"""Many requests through one kernel, some of them faults, and what is left of them in it."""
