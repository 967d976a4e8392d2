"""A simulated ZimSend: `world` decides what happens, without clock and network; `api` gives it
both."""
