"""Pictures → aligned faces: sources, decoding, detection, alignment, quality."""
