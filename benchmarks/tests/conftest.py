"""The terminal of these tests is the one of the product's tests, and so are the recorded stacks."""

import os

os.environ.setdefault("NO_COLOR", "1")
os.environ.setdefault("COLUMNS", "160")
