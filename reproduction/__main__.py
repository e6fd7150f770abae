"""``python -m reproduction``: see `reproduction.cli`."""

from reproduction.cli import main

if __name__ == "__main__":
    main()
