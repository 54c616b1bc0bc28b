"""ExSearch: teach a language model to search, by generalised expectation-maximisation.

The package follows one direction of imports, from what flows (`records`) up to
what a person types (`cli`); `pyproject.toml` holds import-linter to it.
"""

__version__ = "0.1.0"
