"""Sessions: what is drawn, what is shown, what is kept."""
