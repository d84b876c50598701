"""The command `python -m rprop_lit`: chapter 89."""
import sys

from rprop_lit.command import main

if __name__ == '__main__':
    sys.exit(main())
