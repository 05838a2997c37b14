"""The stage that trains a small recognizer on the templates of a large one."""
