"""Files that are written whole or not at all, read with a clear word, and have one writer."""
