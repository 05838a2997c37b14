"""The stage that trains a small recognizer (the student) to return the templates of a large one (the teacher)."""
