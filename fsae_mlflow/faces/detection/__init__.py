"""Where faces and their keypoints are in a picture."""
