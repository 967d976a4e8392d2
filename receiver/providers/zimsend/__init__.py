"""All that knows how ZimSend itself speaks: its webhook, its API, and a simulated ZimSend."""
