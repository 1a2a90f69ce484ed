//! Points in time, to the millisecond.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time in UTC, to the millisecond, between the years 0000 and 9999. Written as
/// `2026-05-22T16:11:26.808Z` (RFC 3339 with exactly three decimals), so that texts sort as times
/// do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(jiff::Timestamp);

/// A text or number that is not a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a time in RFC 3339 form, such as 2026-05-22T16:11:26.808Z")]
pub struct InvalidTime;

impl Time {
    /// A time from milliseconds since 1970-01-01T00:00:00Z. Values out of range become the nearest
    /// valid time.
    pub fn from_millis(millis: i64) -> Self {
        const FIRST: i64 = -62_167_219_200_000; // 0000-01-01T00:00:00.000Z
        const LAST: i64 = 253_402_207_200_000; // the maximum of jiff: 9999-12-30T22:00:00.000Z
        Self(
            jiff::Timestamp::from_millisecond(millis.clamp(FIRST, LAST))
                .expect("clamped to the range of jiff"),
        )
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// The time a number of 24-hour days later.
    #[must_use]
    pub fn plus_days(self, days: i64) -> Self {
        Self::from_millis(
            self.millis()
                .saturating_add(days.saturating_mul(86_400_000)),
        )
    }

    /// The calendar day in UTC.
    pub fn date(self) -> jiff::civil::Date {
        self.0.to_zoned_datetime(jiff::tz::TimeZone::UTC).date()
    }
}

impl From<jiff::Timestamp> for Time {
    fn from(timestamp: jiff::Timestamp) -> Self {
        Self::from_millis(timestamp.as_millisecond())
    }
}

impl From<Time> for jiff::Timestamp {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Time {
    type Err = InvalidTime;
    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        text.parse::<jiff::Timestamp>()
            .map(Self::from)
            .map_err(|_| InvalidTime)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
        })
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_decimals_are_always_written() {
        assert_eq!(Time::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            "2026-05-22T16:11:26.808Z"
                .parse::<Time>()
                .unwrap()
                .to_string(),
            "2026-05-22T16:11:26.808Z"
        );
        assert_eq!(
            "2026-05-22T19:11:26.8+03:00"
                .parse::<Time>()
                .unwrap()
                .to_string(),
            "2026-05-22T16:11:26.800Z"
        );
    }

    #[test]
    fn numbers_out_of_range_become_the_nearest_time() {
        assert_eq!(
            Time::from_millis(i64::MIN).to_string(),
            "0000-01-01T00:00:00.000Z"
        );
        assert!(
            Time::from_millis(i64::MAX)
                .to_string()
                .starts_with("9999-12-30")
        );
        assert_eq!(
            Time::from_millis(i64::MAX).plus_days(i64::MAX),
            Time::from_millis(i64::MAX)
        );
    }

    proptest! {
        #[test]
        fn a_time_reads_back_as_it_was_written(millis in -62_167_219_200_000_i64..=253_402_207_200_000) {
            let time = Time::from_millis(millis);
            prop_assert_eq!(time.millis(), millis);
            prop_assert_eq!(time.to_string().parse::<Time>().unwrap(), time);
        }

        #[test]
        fn any_text_is_a_time_or_an_error(text in ".{0,40}|-?[0-9]{4,6}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,14}(Z|[+-][0-9:]{2,8})") {
            if let Ok(time) = text.parse::<Time>() {
                prop_assert_eq!(time.to_string().parse::<Time>().unwrap(), time);
            }
        }

        #[test]
        fn days_are_added_and_never_overflow(millis in any::<i64>(), days in any::<i64>()) {
            let time = Time::from_millis(millis);
            let moved = time.plus_days(days);
            prop_assert_eq!(moved.cmp(&time).is_ge(), days >= 0 || moved == time);
            let _ = moved.date();
        }
    }
}
