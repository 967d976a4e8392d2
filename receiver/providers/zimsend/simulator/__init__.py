"""A simulated ZimSend on one's own machine: its API over HTTP, its phones, and the webhooks they
cause. `world` decides what happens, without clock and network; `running` gives it both, `api` is
what may be called, `reading` and `history` what is asked there."""
