"""What is known about hardware, models, switches, runtimes and prices: rows with their sources, no decisions."""
