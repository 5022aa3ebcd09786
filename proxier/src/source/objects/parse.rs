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
    text.parse().ok().map(jiff::Timestamp::as_millisecond)
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
