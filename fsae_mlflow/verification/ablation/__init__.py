"""How verification changes where features are left out, each by itself and each reading."""
