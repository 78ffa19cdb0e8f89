"""The entry point of ``igm``, ``python -m igm_cli`` and ``accelerate launch -m igm_cli``."""

import sys


def main() -> int:
    """Runs the command line and returns the exit code, also if Ctrl-C comes during the imports."""
    try:
        from igm_cli.app import main as run
    except KeyboardInterrupt:
        sys.stderr.write("igm: interrupted\n")
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
