"""stub"""
def plugins() -> None:
    """stub"""
