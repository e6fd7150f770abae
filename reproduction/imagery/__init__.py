"""Other people's images in their official formats."""
