//! Points in time as texts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Go's zero time, which stands for "never".
pub(super) const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 in UTC, with nanoseconds without the zeros at their end. What is before 1970 is 1970.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    match since.subsec_nanos() {
        0 => text + "Z",
        nanos => format!("{text}.{}Z", format!("{nanos:09}").trim_end_matches('0')),
    }
}

/// Year, month and day of the Gregorian calendar, so many days after 1970-01-01.
///
/// Years are counted from March here: so the leap day is the last of its year, and the lengths of
/// the months before it repeat every five.
fn date(days: u64) -> (u64, u64, u64) {
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH: u64 = 719_468;
    const FOUR_CENTURIES: u64 = 146_097;
    let days = days + EPOCH;
    let (era, day_of_era) = (days / FOUR_CENTURIES, days % FOUR_CENTURIES);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_does() {
        let text = |secs, nanos| rfc3339(UNIX_EPOCH + Duration::new(secs, nanos));
        assert_eq!(text(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(text(951_782_399, 1), "2000-02-28T23:59:59.000000001Z");
        assert_eq!(text(951_868_799, 120_000_000), "2000-02-29T23:59:59.12Z");
        assert_eq!(text(951_868_800, 0), "2000-03-01T00:00:00Z");
        assert_eq!(text(1_780_315_200, 123_456_789), "2026-06-01T12:00:00.123456789Z");
        assert_eq!(text(4_107_542_400, 0), "2100-03-01T00:00:00Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = date(0);
        for days in 1..400 * 366 {
            let (year, month, day) = date(days);
            let next = match last {
                (_, _, before) if day == before + 1 => (last.0, last.1, day),
                (before, 12, 31) => (before + 1, 1, 1),
                (_, before, 28..=31) => (last.0, before + 1, 1),
                _ => panic!("{last:?} is followed by {year}-{month}-{day}"),
            };
            assert_eq!((year, month, day), next);
            last = next;
        }
    }
}
