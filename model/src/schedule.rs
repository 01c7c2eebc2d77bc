//! When something is to happen again and again: crontab(5) by the clocks of a time zone.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use jiff::Zoned;
use jiff::tz::TimeZone;

use crate::Timestamp;

/// What stands for a schedule that never comes by itself.
const MANUAL: &str = "manual";
/// The time zone of whoever names none.
const UTC: &str = "UTC";

/// Times that come again: five fields of crontab(5), or `@daily` and the like; `manual` never comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    cron: Option<Cron>,
}

/// A time zone by its name: `Europe/Berlin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Schedule {
    /// The first moment after another, by the clocks of a zone. One that clocks leave out when they are put forward comes at the
    /// moment when they are; one that they show twice comes the first time only, unless it comes every hour or every minute anyway.
    pub fn next(&self, zone: &Zone, after: Timestamp) -> Option<Timestamp> {
        let next = self.cron.as_ref()?.find_next_occurrence(&zone.at(after)?, false).ok()?;
        // A clock that is asked between two seconds must not be told the one that it is in.
        Some(moment(&next)).filter(|next| *next > after)
    }

    /// The last moment that is not after another.
    pub fn last(&self, zone: &Zone, until: Timestamp) -> Option<Timestamp> {
        let last = self.cron.as_ref()?.find_previous_occurrence(&zone.at(until)?, true).ok()?;
        Some(moment(&last)).filter(|last| *last <= until)
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self { text: MANUAL.to_owned(), cron: None }
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == MANUAL {
            return Ok(Self::default());
        }
        // The parser would also take fields of seconds and years, which crontab(5) does not have.
        let is_shaped = text.starts_with('@') || text.split_whitespace().count() == 5;
        let wrong = match text.parse::<Cron>() {
            Ok(cron) if is_shaped => return Ok(Self { text: text.to_owned(), cron: Some(cron) }),
            Ok(_) => "it must have five fields: minute, hour, day of month, month, day of week".to_owned(),
            Err(error) => error.to_string().trim_end_matches('.').to_owned(),
        };
        Err(format!("must be a time like \"0 3 * * *\" or @daily: {wrong}"))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Zone {
    fn at(&self, time: Timestamp) -> Option<Zoned> {
        Some(jiff::Timestamp::from_millisecond(time.as_millis()).ok()?.to_zoned(self.0.clone()))
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == UTC {
            return Ok(Self::default());
        }
        let zone = TimeZone::get(text);
        zone.map(Self).map_err(|_| format!("must be a time zone like Europe/Berlin or UTC, not {text:?}"))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or(UTC))
    }
}

fn moment(time: &Zoned) -> Timestamp {
    Timestamp::from_millis(time.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    /// The next moments of a schedule after one, in UTC.
    fn nexts(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let (schedule, zone): (Schedule, Zone) = (schedule.parse().expect("one"), zone.parse().expect("one"));
        let mut after = at(after);
        let mut times = Vec::new();
        for _ in 0..count {
            after = schedule.next(&zone, after).expect("there is always a next one");
            assert_eq!(schedule.last(&zone, after), Some(after), "what comes next is the last one when it is there");
            times.push(after.to_rfc3339());
        }
        times
    }

    #[test]
    fn a_zone_has_its_own_clocks_through_summer_time() {
        // On 2026-03-29 the clocks of Berlin go from 02:00 to 03:00, on 2026-10-25 from 03:00 back to 02:00.
        assert_eq!(
            nexts("0 9 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 2),
            ["2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z"]
        );
        assert_eq!(
            nexts("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
            "half past two is not on the clocks: it comes when they are put forward"
        );
        assert_eq!(
            nexts("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
            "half past two is there twice: it comes once"
        );
        assert_eq!(
            nexts("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:50:00Z", 4),
            ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z"],
            "what comes every half an hour does so all the time"
        );
    }

    #[test]
    fn what_comes_by_itself_is_five_fields_and_the_rest_is_refused() {
        assert_eq!(nexts("@daily", "UTC", "2026-11-21T02:39:46Z", 1), ["2026-11-22T00:00:00Z"]);
        assert_eq!(nexts("0 0 29 2 *", "UTC", "2026-11-21T02:39:46Z", 1), ["2028-02-29T00:00:00Z"]);
        assert_eq!(Schedule::default().next(&Zone::default(), at("2026-11-21T02:39:46Z")), None);
        for bad in ["", "61 * * * *", "* * * * * *", "every day", "* * * *"] {
            assert!(bad.parse::<Schedule>().is_err(), "{bad}");
        }
        assert!("Mars/Olympus".parse::<Zone>().is_err());
        assert_eq!("europe/berlin".parse::<Zone>().expect("a zone").to_string(), "Europe/Berlin");
    }

    proptest! {
        /// Whoever asks for one after the other misses none and sees none twice, whatever the clocks do meanwhile.
        #[test]
        fn the_next_one_is_the_first_that_is_the_last(
            start in 1_767_225_600_i64..1_830_297_600,
            schedule in prop::sample::select(vec!["* * * * *", "*/7 * * * *", "30 2 * * *", "0 */2 * * *", "15 1,2,3 * * 0"]),
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
        ) {
            let (schedule, zone): (Schedule, Zone) = (schedule.parse().expect("one"), zone.parse().expect("one"));
            let after = Timestamp::from_millis(start * 1000);
            let next = schedule.next(&zone, after).expect("one");
            prop_assert!(next > after);
            prop_assert_eq!(schedule.last(&zone, next), Some(next));
            let before = Timestamp::from_millis(next.as_millis() - 1000);
            prop_assert!(schedule.last(&zone, before).is_none_or(|last| last <= after), "none between them");
        }
    }
}
