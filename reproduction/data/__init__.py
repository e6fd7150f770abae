"""The data sets that the book uses: what they are, and how each comes onto this machine."""
