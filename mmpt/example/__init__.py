"""Small trained models with scenes to try them on, in the package itself."""
