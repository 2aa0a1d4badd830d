"""The command line of the kit: plan, render, run on this machine, verify."""
