"""A simulated SMS.CX: `world` decides what happens, `running` gives it a clock, `api` a port."""
