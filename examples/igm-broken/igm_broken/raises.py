"""Cannot be imported, and talks on standard output before it fails."""

print("this must not reach standard output")
raise ImportError("needs libfancy 3")
