"""A regular expression of the user's that finds the patient in a file's name, in bounded time."""

from __future__ import annotations

__all__ = ["PatientPattern", "patient_pattern"]

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import BadInput

if TYPE_CHECKING:
    import regex

_LONGEST = 1000
_SECONDS = 1.0
_EXAMPLE = r"such as (?P<patient>\d+)_"


@dataclass(frozen=True)
class PatientPattern:
    """A compiled pattern with a group `patient`."""

    compiled: regex.Pattern[str]

    def patient(self, name: str, *, where: str) -> str | None:
        """The patient whom `name` spells, None where it spells none. BadInput where the search takes over a second."""
        try:
            match = self.compiled.search(name, timeout=_SECONDS)
        except TimeoutError:
            raise BadInput(
                f"{where}: the pattern is not done with its name after {_SECONDS:g} s; "
                "use no repetition within a repetition"
            ) from None
        return match["patient"] or None if match else None


def patient_pattern(text: str) -> PatientPattern:
    """Compile a pattern. Raises BadInput where it is none, or has no group `patient`."""
    import regex

    if len(text) > _LONGEST:
        raise BadInput(f"the pattern is longer than {_LONGEST} characters; give a shorter one, {_EXAMPLE}")
    try:
        compiled = regex.compile(text)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        why = str(error) if isinstance(error, regex.error) else type(error).__name__
        raise BadInput(f"the pattern is no regular expression ({why}); correct it, {_EXAMPLE}") from None
    if "patient" not in compiled.groupindex:
        raise BadInput(f"the pattern has no group called patient; name one, {_EXAMPLE}")
    return PatientPattern(compiled)
