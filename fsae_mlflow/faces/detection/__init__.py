"""Finding faces and their keypoints in pictures."""
