"""Search spaces: what a sweep varies. One TOML file each, and the schema that reads it."""

from search_spaces.document import SearchDefaults
from search_spaces.schema import SearchSpace, list_spaces, load_space, parse_space

__all__ = ["SearchDefaults", "SearchSpace", "list_spaces", "load_space", "parse_space"]
