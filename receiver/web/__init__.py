"""What the service answers over HTTP: the webhook, and thin blueprints over the parts."""
