"""Facts about hardware, models, switches, runtimes and prices: rows with their sources, no decisions."""
