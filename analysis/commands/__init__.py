"""The commands that analysis brings; each imports what it needs when it runs."""
