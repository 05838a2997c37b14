"""From pictures to aligned faces: sources, decoding, keypoints, alignment, quality."""
