"""From features to images that fire them."""
