"""stub"""
def invert() -> None:
    """stub"""
