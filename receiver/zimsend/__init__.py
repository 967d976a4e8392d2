"""All that knows how ZimSend itself speaks."""
