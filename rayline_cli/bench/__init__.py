"""`rayline bench`: several ways to serve one model, side by side in one run on this machine, measured in turns."""
