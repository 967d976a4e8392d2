"""All that knows how sipgate speaks. It reports nothing by itself: its history is asked."""
