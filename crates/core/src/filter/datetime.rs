//! Datetimes in payloads and filters.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// Reads a datetime as Qdrant does: RFC 3339, or without a zone (then UTC) with `T` or a space
/// between date and time, or a date alone. Answers microseconds since 1970-01-01T00:00:00Z.
pub fn parse_datetime(text: &str) -> Option<i64> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.timestamp_micros());
    }
    // An offset without a colon, as some writers leave it.
    if let Ok(at) = DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%#z") {
        return Some(at.timestamp_micros());
    }
    for form in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"] {
        if let Ok(at) = NaiveDateTime::parse_from_str(text, form) {
            return Some(at.and_utc().timestamp_micros());
        }
    }
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_moment_reads_the_same_in_every_form() {
        let moment = parse_datetime("2024-02-29T12:00:00Z").unwrap();
        for text in [
            "2024-02-29T13:00:00+01:00",
            "2024-02-29T13:00:00+0100",
            "2024-02-29T12:00:00",
            "2024-02-29 12:00:00.000",
            "2024-02-29 12:00",
        ] {
            assert_eq!(parse_datetime(text), Some(moment), "{text}");
        }
        assert_eq!(parse_datetime("2024-02-29"), Some(moment - 12 * 3600 * 1_000_000));
        for bad in ["", "yesterday", "2023-02-29", "2024-02-29T25:00:00Z", "12"] {
            assert_eq!(parse_datetime(bad), None, "{bad}");
        }
    }
}
