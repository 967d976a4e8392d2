"""What simulated providers have in common: time that moves forward, bad weather, and a port."""
