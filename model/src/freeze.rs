//! Times of the week in which nothing is deployed.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Zoned};

use crate::{NameError, Timestamp};

/// A part of every week, such as `fri 16:00 - mon 08:00`, in some time zone. One that begins where it ends is a whole week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeeklyWindow {
    from: Moment,
    to: Moment,
    zone: String,
}

/// A moment of every week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    day: Weekday,
    time: Time,
}

impl WeeklyWindow {
    /// From `fri 16:00 - mon 08:00` and the name of a time zone as the IANA database has it: `Europe/Berlin`.
    pub fn new(text: &str, zone: &str) -> Result<Self, NameError> {
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        if zone.parse::<Zone>().is_err() {
            return Err(NameError(format!(
                "time zone {zone:?} is not known here; UTC always is, others like Europe/Berlin come with the package tzdata"
            )));
        }
        Ok(Self { from: from.trim().parse()?, to: to.trim().parse()?, zone: zone.to_owned() })
    }

    /// The name of its time zone.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// When it ends, if it is now.
    pub fn end_of(&self, now: Timestamp) -> Option<Timestamp> {
        let zone = self.zone.parse::<Zone>().map_or(TimeZone::UTC, |zone| zone.0);
        let now = jiff::Timestamp::from_millisecond(now.as_millis()).ok()?.to_zoned(zone);
        // The last beginning is at most a week ago, and its end within a week of it.
        let begun = self.from.last(&now)?;
        let end = self.to.next(&begun)?;
        (now < end).then(|| Timestamp::from_millis(end.timestamp().as_millisecond()))
    }
}

impl fmt::Display for WeeklyWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.from, self.to)
    }
}

impl Moment {
    /// The last one that is not after `now`.
    fn last(self, now: &Zoned) -> Option<Zoned> {
        let days = i64::from(now.weekday().since(self.day));
        let same_day = now.checked_sub(Span::new().days(days)).ok()?.with().time(self.time).build().ok()?;
        if same_day <= *now { Some(same_day) } else { same_day.checked_sub(Span::new().weeks(1)).ok() }
    }

    /// The first one after `then`.
    fn next(self, then: &Zoned) -> Option<Zoned> {
        let days = i64::from(then.weekday().until(self.day));
        let same_day = then.checked_add(Span::new().days(days)).ok()?.with().time(self.time).build().ok()?;
        if same_day > *then { Some(same_day) } else { same_day.checked_add(Span::new().weeks(1)).ok() }
    }
}

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

impl FromStr for Moment {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (day, time) = text.split_once(' ').ok_or_else(wrong)?;
        let day = DAYS.iter().find(|(name, _)| name.eq_ignore_ascii_case(day)).ok_or_else(wrong)?.1;
        let (hour, minute) = time.trim().split_once(':').ok_or_else(wrong)?;
        let number = |text: &str| (text.len() == 2).then(|| text.parse::<i8>().ok()).flatten().ok_or_else(wrong);
        let time = Time::new(number(hour)?, number(minute)?, 0, 0).map_err(|_| wrong())?;
        Ok(Self { day, time })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = DAYS.iter().find(|(_, day)| *day == self.day).map_or("", |(name, _)| name);
        write!(f, "{day} {:02}:{:02}", self.time.hour(), self.time.minute())
    }
}

fn wrong() -> NameError {
    NameError("A freeze window is written like \"fri 16:00 - mon 08:00\"".to_owned())
}

/// A time zone that this machine knows.
struct Zone(TimeZone);

impl FromStr for Zone {
    type Err = jiff::Error;

    fn from_str(name: &str) -> Result<Self, jiff::Error> {
        if name == "UTC" { Ok(Self(TimeZone::UTC)) } else { TimeZone::get(name).map(Self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let time: jiff::Timestamp = text.parse().expect("a time");
        Timestamp::from_millis(time.as_millisecond())
    }

    #[test]
    fn a_weekend_is_frozen_from_its_first_to_before_its_last_moment() {
        let weekend = WeeklyWindow::new("Fri 16:00-mon 08:00", "UTC").expect("a window");
        assert_eq!(weekend.to_string(), "fri 16:00 - mon 08:00");
        // 2026-11-20 is a Friday.
        let end = at("2026-11-23T08:00:00Z");
        for (time, frozen) in [
            ("2026-11-20T15:59:59Z", false),
            ("2026-11-20T16:00:00Z", true),
            ("2026-11-21T12:00:00Z", true),
            ("2026-11-23T07:59:59Z", true),
            ("2026-11-23T08:00:00Z", false),
            ("2026-11-25T12:00:00Z", false),
        ] {
            assert_eq!(weekend.end_of(at(time)), frozen.then_some(end), "{time}");
        }
    }

    #[test]
    fn a_night_within_a_day_and_a_whole_week_are_windows_too() {
        let noon = WeeklyWindow::new("wed 11:00 - wed 13:00", "UTC").expect("a window");
        assert!(noon.end_of(at("2026-11-25T12:00:00Z")).is_some() && noon.end_of(at("2026-11-25T14:00:00Z")).is_none());
        let always = WeeklyWindow::new("mon 00:00 - mon 00:00", "UTC").expect("a window");
        assert_eq!(always.end_of(at("2026-11-25T12:00:00Z")), Some(at("2026-11-30T00:00:00Z")));
    }

    #[test]
    fn a_time_zone_keeps_its_own_clock_through_summer_time() {
        // Not every machine has the database of time zones.
        let Ok(evening) = WeeklyWindow::new("mon 18:00 - mon 20:00", "Europe/Berlin") else { return };
        assert!(evening.end_of(at("2026-07-20T16:30:00Z")).is_some(), "18:30 in summer");
        assert!(evening.end_of(at("2026-11-23T17:30:00Z")).is_some(), "18:30 in winter");
        assert!(evening.end_of(at("2026-11-23T16:30:00Z")).is_none());
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for bad in ["", "fri", "fri 16:00", "fri 16 - mon 8", "fri 24:00 - mon 08:00", "xyz 10:00 - mon 11:00"] {
            assert!(WeeklyWindow::new(bad, "UTC").is_err(), "{bad}");
        }
        assert!(WeeklyWindow::new("fri 16:00 - mon 08:00", "Mars/Olympus").is_err());
    }
}
