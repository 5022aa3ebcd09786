//! Spans of time as Go writes them: `30s`, `1h30m`, `1.5s`, `-5s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};

/// A span of time in nanoseconds; may be negative, as configuration files may say so (validation
/// then refuses it).
///
/// It is read from the text that Go's `time.ParseDuration` takes, or from an integer of
/// nanoseconds. An integer below a millisecond other than 0 is refused: whoever writes
/// `syncPeriod: 30` means seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GoDuration(i64);

/// The text is not a span of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write a number and a unit, such as 30s, 15m or 1h30m")]
pub struct ParseDurationError(String);

// === impl GoDuration ===

impl GoDuration {
    /// No time.
    pub const ZERO: Self = Self(0);

    const UNITS: [(&'static str, i64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("\u{b5}s", 1_000),
        ("\u{3bc}s", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60 * 1_000_000_000),
        ("h", 3600 * 1_000_000_000),
    ];

    /// This many seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds * 1_000_000_000)
    }

    /// This many nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Whether it is 0.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// As the standard library's type; a negative one becomes 0.
    pub fn unsigned(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    /// Itself, or `default` if it is 0.
    #[must_use]
    pub const fn or(self, default: Self) -> Self {
        if self.is_zero() { default } else { self }
    }

    fn parse(text: &str) -> Option<i64> {
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Some(0);
        }
        let mut total: i128 = 0;
        loop {
            let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at(number_end);
            let unit_end =
                tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let scale = Self::UNITS.iter().find(|(name, _)| *name == unit)?.1;
            total += Self::scaled(number, scale)?;
            if tail.is_empty() {
                break;
            }
            rest = tail;
        }
        i64::try_from(if negative { -total } else { total }).ok()
    }

    fn scaled(number: &str, scale: i64) -> Option<i128> {
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        // Below a nanosecond nothing counts, so more digits than an hour has nanoseconds do not.
        let digits = &fraction[..fraction.len().min(15)];
        let part: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
        let part = part * i128::from(scale) / 10_i128.pow(u32::try_from(digits.len()).ok()?);
        Some(i128::from(whole) * i128::from(scale) + part)
    }
}

impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl FromStr for GoDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).map(Self).ok_or_else(|| ParseDurationError(text.to_owned()))
    }
}

/// As Go prints it: `24h0m0s`, `1m30s`, `1.5s`, `100ms`, `0s`.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let (unit, scale) = match nanos {
            0 => return f.write_str("0s"),
            1..1_000 => ("ns", 1),
            1_000..1_000_000 => ("\u{b5}s", 1_000),
            1_000_000..1_000_000_000 => ("ms", 1_000_000),
            _ => ("s", 1_000_000_000),
        };
        let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        let rest = nanos % 60_000_000_000;
        write!(f, "{}", rest / scale)?;
        if !rest.is_multiple_of(scale) {
            let width = scale.ilog10() as usize;
            let fraction = format!("{:0width$}", rest % scale);
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        f.write_str(unit)
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = GoDuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 30s")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<GoDuration, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, nanos: i64) -> Result<GoDuration, E> {
                if nanos != 0 && nanos.unsigned_abs() < 1_000_000 {
                    return Err(E::custom(format_args!(
                        "{nanos} without a unit is {nanos} nanoseconds: write {nanos}s if seconds \
                         are meant"
                    )));
                }
                Ok(GoDuration(nanos))
            }

            fn visit_u64<E: de::Error>(self, nanos: u64) -> Result<GoDuration, E> {
                i64::try_from(nanos).map_err(E::custom).and_then(|nanos| self.visit_i64(nanos))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_as_go_does() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("30s", 30_000_000_000, "30s"),
            ("15m", 900_000_000_000, "15m0s"),
            ("24h", 86_400_000_000_000, "24h0m0s"),
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            (".5m", 30_000_000_000, "30s"),
            ("100ms", 100_000_000, "100ms"),
            ("1500us", 1_500_000, "1.5ms"),
            ("7\u{b5}s3ns", 7_003, "7.003\u{b5}s"),
            ("5ns", 5, "5ns"),
            ("-5s", -5_000_000_000, "-5s"),
            ("+2m3.25s", 123_250_000_000, "2m3.25s"),
        ] {
            let duration: GoDuration = text.parse().unwrap();
            assert_eq!(duration, GoDuration::from_nanos(nanos), "{text}");
            assert_eq!(duration.to_string(), printed, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_printed_is_read_back(nanos: i64) {
            let duration = GoDuration::from_nanos(nanos);
            proptest::prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in ["", "-", "30", "s", ".s", "1.2.3s", "30 s", "1d", "3000000h", "1h-5m", "5S"] {
            assert!(text.parse::<GoDuration>().is_err(), "{text}");
        }
    }

    #[test]
    fn integers_are_nanoseconds_unless_they_look_like_seconds() {
        let read = |json: &str| serde_json::from_str::<GoDuration>(json);
        assert_eq!(read("0").unwrap(), GoDuration::ZERO);
        assert_eq!(read("5000000000").unwrap(), GoDuration::from_secs(5));
        assert_eq!(read("\"5s\"").unwrap(), GoDuration::from_secs(5));
        assert!(read("30").unwrap_err().to_string().contains("write 30s"));
        assert!(read("1.5").is_err());
    }
}
