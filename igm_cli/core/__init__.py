"""The engine: tensors in, understanding out.  Knows no domain and no terminal."""
