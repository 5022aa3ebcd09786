//! Points in time as texts.

use std::time::{SystemTime, UNIX_EPOCH};

/// Go's zero time, which stands for "never".
pub(super) const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 in UTC, with nanoseconds without the zeros at their end. What is before 1970 is 1970.
pub(super) fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time.max(UNIX_EPOCH)).unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
