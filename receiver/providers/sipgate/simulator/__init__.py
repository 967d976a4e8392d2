"""A simulated sipgate: `world` decides what happens, `running` gives it a clock, `api` a port."""
