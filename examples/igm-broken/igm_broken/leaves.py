"""Ends the interpreter when imported."""

import sys

sys.exit("goodbye")
