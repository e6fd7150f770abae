"""``python -m selm`` is `selm`."""

from selm.cli import main

if __name__ == "__main__":
    main()
