"""What can go wrong, told so that a person can mend it.

Every error raised on purpose is one of these: a sentence that says what was
wrong, where, and what to do. The command line turns them into exit codes.
"""

from __future__ import annotations


class ExSearchError(Exception):
    """A step failed for a reason we can name (exit code 1)."""

    exit_code = 1


class InputError(ExSearchError):
    """What the user gave cannot be used: a flag, a path, a line of a file (exit code 2)."""

    exit_code = 2


class BadLine(InputError):
    """One line of an input file, or one element of its array, breaks its format's promise."""

    def __init__(
        self, source: str, line: int, field: str, problem: str, unit: str = "line"
    ) -> None:
        self.source, self.line, self.field, self.problem = source, line, field, problem
        self.unit = unit
        super().__init__(
            f"{source}, {unit} {line}, field '{field}': {problem}. "
            f"Mend the {unit}, or pass --skip-bad to count it and go on."
        )


class StorageError(ExSearchError):
    """A file could not be read or written (missing, no permission, disk full)."""


class RetrieverError(ExSearchError):
    """The retriever did not answer in time, or not usefully, after all retries."""


class PolicyError(ExSearchError):
    """The language model's engine could not generate or score."""
