"""What was missed comes back: `passes` says when ZimSend is asked for it, `catching_up` asks, and
`losses` counts."""
