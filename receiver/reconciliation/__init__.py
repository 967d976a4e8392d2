"""What was missed comes back: `planning` says when an account is asked and for what, `passes` does
so, `catching_up` reads and learns, and `losses` counts."""
