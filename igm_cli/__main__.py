"""``python -m igm_cli`` and ``accelerate launch -m igm_cli``."""

import sys

from igm_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
