"""Training: pure losses, methods that pair an attack with a loss, schedules, the loop."""
