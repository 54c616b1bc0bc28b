"""When a schedule starts next. Kubeflow Pipelines does not tell, so it is worked out here."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"
_WEEKDAYS = "SUN MON TUE WED THU FRI SAT"
_NAMES: dict[int, dict[str, int]] = {
    4: {name: number for number, name in enumerate(_MONTHS.split(), 1)},
    5: {name: number for number, name in enumerate(_WEEKDAYS.split())},
}
"""Names that a field takes beside numbers."""
_YEARS = 5
"""Years that are looked through; 29 February on one day of the week may take longer."""


def next_time(cron: str, after: datetime) -> datetime | None:
    """The first moment after `after` that a schedule names, in UTC.

    Args:
        cron: six fields, seconds first; `*`, `?`, lists, ranges, steps, names of months and days.

    Returns:
        None where there is none in the next years, or where the text is of another form.
    """
    try:
        fields = [
            _values(text, number) for number, text in enumerate(cron.upper().split(), start=0)
        ]
        seconds, minutes, hours, days, months, weekdays = fields
    except (ValueError, IndexError):
        return None
    texts = cron.split()
    either = texts[3] not in ("*", "?") and texts[5] not in ("*", "?")
    start = after.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
    for number in range(366 * _YEARS):
        day = (start + timedelta(days=number)).date()
        on_day, on_weekday = day.day in days, day.isoweekday() % 7 in weekdays
        # As everywhere: where both are restricted, one of them is enough.
        fits = (on_day or on_weekday) if either else (on_day and on_weekday)
        if day.month not in months or not fits:
            continue
        for hour in sorted(hours):
            for minute in sorted(minutes):
                for second in sorted(seconds):
                    found = datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=UTC)
                    if found >= start:
                        return found
    return None


def _values(text: str, field: int) -> set[int]:
    """The numbers that one field allows."""
    low, high = _RANGES[field]
    found: set[int] = set()
    for part in text.split(","):
        spread, _, step = part.partition("/")
        if spread in ("*", "?"):
            first, last = low, high
        else:
            begin, dash, end = spread.partition("-")
            first = _number(begin, field)
            last = _number(end, field) if dash else (high if step else first)
        if not low <= first <= last <= high or (step and int(step) < 1):
            raise ValueError(text)
        found.update(range(first, last + 1, int(step) if step else 1))
    return {value % 7 for value in found} if field == 5 else found


def _number(text: str, field: int) -> int:
    named = _NAMES.get(field, {}).get(text)
    return int(text) if named is None else named
