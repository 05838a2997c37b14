"""What is confirmed of each feature on other people, and the sentence and the name that it gets."""
