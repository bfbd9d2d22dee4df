"""Keys of services: named in a recipe, kept in the environment."""

import os


def key_from_environment(name: str | None) -> str | None:
    """The key in the environment variable ``name``; None for no name. ValueError when the environment has none."""
    if name is None:
        return None
    key = os.environ.get(name, "")
    if not key:
        raise ValueError(f"api_key_env: the environment variable {name!r} is not set; export the key there")
    return key
