"""stub"""
def estimate_k() -> None:
    """stub"""
