"""``python -m selm`` is `selm`."""

import sys


def main() -> None:
    """The command `selm`; interrupted while it is still imported, it ends as `selm.cli` would end it."""
    try:
        from selm import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
