"""Real faces as images are made from them and measured by them: their looks, their templates, what to begin with."""
