"""The command `python -m rprop_lit`: the sunspots of chapter 88."""
import sys

from rprop_lit.sunspots import main

if __name__ == '__main__':
    sys.exit(main())
