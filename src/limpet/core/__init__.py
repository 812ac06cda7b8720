"""Pure values and plans: no I/O, no clock, no environment."""
