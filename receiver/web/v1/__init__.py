"""`/v1`: what ZimSend's own API answers, from here."""
