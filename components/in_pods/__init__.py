"""What runs in the pods: handed to them as files, so each module knows the standard library only."""
