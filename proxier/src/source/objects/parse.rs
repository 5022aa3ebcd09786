//! Text of Kubernetes objects as values.

use netlink_ipvs::Protocol;

/// `TCP`, `UDP` or `SCTP`, in this spelling only, as the API server.
pub(crate) fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// An RFC 3339 time as milliseconds since 1970.
pub(crate) fn timestamp(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once(['T', 't'])?;
    let [year, month, day] = numbers(date, '-')?;
    let (clock, offset) = if let Some(clock) = rest.strip_suffix(['Z', 'z']) {
        (clock, 0)
    } else {
        let at = rest.rfind(['+', '-'])?;
        let [hours, minutes] = numbers(&rest[at + 1..], ':')?;
        let offset = hours * 60 + minutes;
        (&rest[..at], if rest[at..].starts_with('-') { -offset } else { offset })
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':')?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let valid = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && offset.abs() < 24 * 60;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + (minute - offset) * 60 + second;
    valid.then_some(seconds * 1000 + millis)
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(separator);
    for number in &mut numbers {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 4 || !part.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. The year is taken to begin in March,
/// so that the leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_milliseconds() {
        // Expected values from `date -u -d TIME +%s%3N`.
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-02-29T12:34:56Z", Some(1_709_210_096_000)),
            ("2024-03-01T00:00:00.5Z", Some(1_709_251_200_500)),
            ("2024-03-01T02:00:00.123456789+02:00", Some(1_709_251_200_123)),
            ("2023-12-31T23:59:59-01:30", Some(1_704_072_599_000)),
            ("1969-12-31T23:59:59Z", Some(-1000)),
            ("2024-13-01T00:00:00Z", None),
            ("2024-03-01T00:00:00", None),
            ("2024-03-01", None),
            ("2024-03-01T00:00:00.éZ", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(timestamp(text), expected, "{text:?}");
        }
    }
}
