"""It says when something is wrong, and what: `ALERT_URLS`."""
