"""All that knows how SMS.CX itself speaks: its callbacks, its API, and a simulated SMS.CX."""
