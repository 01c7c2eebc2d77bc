//! Times in which nothing is deployed: a part of every week, or once.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Zoned};

use crate::{NameError, Timestamp};

/// A time in which nothing is deployed, as people write it: `fri 16:00 - mon 08:00 Europe/Berlin` is a part of every week,
/// `2026-12-23 18:00 - 2027-01-02 UTC` is once. A day without a time begins at midnight; without a time zone it is UTC. A part
/// of the week that ends where it begins is a whole week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    span: FreezeSpan,
    zone: TimeZone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FreezeSpan {
    Weekly(Moment, Moment),
    Once(DateTime, DateTime),
}

/// A moment of every week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    day: Weekday,
    time: Time,
}

impl Freeze {
    /// When it ends, if it is now.
    pub fn end_of(&self, now: Timestamp) -> Option<Timestamp> {
        let now = self.at(now)?;
        let (begun, end) = match self.span {
            // The last beginning is at most a week ago, and its end within a week of it.
            FreezeSpan::Weekly(from, to) => {
                let begun = from.last(&now)?;
                let end = to.next(&begun)?;
                (begun, end)
            }
            FreezeSpan::Once(from, to) => (self.zoned(from)?, self.zoned(to)?),
        };
        (begun <= now && now < end).then(|| moment(&end))
    }

    /// Whether it is past and does not come again.
    pub fn is_over(&self, now: Timestamp) -> bool {
        let end = match self.span {
            FreezeSpan::Weekly(..) => None,
            FreezeSpan::Once(_, to) => self.zoned(to),
        };
        end.is_some_and(|end| moment(&end) <= now)
    }

    /// A moment by the clocks of its time zone: `Mon 2026-11-23 08:00 Europe/Berlin`.
    pub fn local(&self, time: Timestamp) -> String {
        self.at(time).map_or_else(String::new, |time| format!("{} {}", time.strftime("%a %Y-%m-%d %H:%M"), self.zone()))
    }

    fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or(UTC)
    }

    fn at(&self, time: Timestamp) -> Option<Zoned> {
        Some(jiff::Timestamp::from_millisecond(time.as_millis()).ok()?.to_zoned(self.zone.clone()))
    }

    fn zoned(&self, time: DateTime) -> Option<Zoned> {
        time.to_zoned(self.zone.clone()).ok()
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.span {
            FreezeSpan::Weekly(from, to) => write!(f, "{from} - {to}"),
            FreezeSpan::Once(from, to) => {
                write!(f, "{} - {}", from.strftime("%Y-%m-%d %H:%M"), to.strftime("%Y-%m-%d %H:%M"))
            }
        }?;
        write!(f, " {}", self.zone())
    }
}

impl FromStr for Freeze {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let text = text.replace('–', " - ");
        let words: Vec<&str> = text.split_whitespace().collect();
        let dash = words.iter().position(|word| SEPARATORS.contains(word)).ok_or_else(wrong)?;
        let (from, to) = (&words[..dash], &words[dash + 1..]);
        // Whatever is behind the second moment and looks like none of its words is the zone.
        let is_moment = |word: &&str| word.contains(':') || weekday(word).is_some() || word.parse::<Date>().is_ok();
        let (to, zone) = match to.split_last() {
            Some((zone, to)) if !is_moment(zone) => (to, *zone),
            _ => (to, UTC),
        };
        let unknown =
            |_| NameError(format!("time zone {zone:?} is not known; one is written like Europe/Berlin or UTC"));
        let zone = if zone == UTC { TimeZone::UTC } else { TimeZone::get(zone).map_err(unknown)? };
        let span = match (weekly(from)?, weekly(to)?) {
            (Some(from), Some(to)) => FreezeSpan::Weekly(from, to),
            (None, None) => FreezeSpan::Once(once(from)?, once(to)?),
            _ => return Err(wrong()),
        };
        if matches!(span, FreezeSpan::Once(from, to) if to <= from) {
            return Err(NameError("A freeze window must end after it begins".to_owned()));
        }
        Ok(Self { span, zone })
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

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = DAYS.iter().find(|(_, day)| *day == self.day).map_or("", |(name, _)| name);
        write!(f, "{day} {:02}:{:02}", self.time.hour(), self.time.minute())
    }
}

const UTC: &str = "UTC";

/// What may stand between the beginning and the end.
const SEPARATORS: [&str; 3] = ["-", "to", "until"];

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// A day by the first letters of its English name, at least three.
fn weekday(word: &str) -> Option<Weekday> {
    const NAMES: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let word = word.to_ascii_lowercase();
    let found = NAMES.iter().position(|name| word.len() >= 3 && name.starts_with(&word))?;
    Some(DAYS[found].1)
}

/// A moment of every week; none if it does not begin with a day of the week.
fn weekly(words: &[&str]) -> Result<Option<Moment>, NameError> {
    let Some(day) = words.first().and_then(|word| weekday(word)) else { return Ok(None) };
    Ok(Some(Moment { day, time: clock(&words[1..])? }))
}

fn once(words: &[&str]) -> Result<DateTime, NameError> {
    let date = words.first().and_then(|word| word.parse::<Date>().ok()).ok_or_else(wrong)?;
    Ok(date.to_datetime(clock(&words[1..])?))
}

/// `16:00`, or nothing.
fn clock(words: &[&str]) -> Result<Time, NameError> {
    let (hour, minute) = match words {
        [] => return Ok(Time::midnight()),
        [word] => word.split_once(':').ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    let number =
        |text: &str| (1..=2).contains(&text.len()).then(|| text.parse::<i8>().ok()).flatten().ok_or_else(wrong);
    Time::new(number(hour)?, number(minute)?, 0, 0).map_err(|_| wrong())
}

fn moment(time: &Zoned) -> Timestamp {
    Timestamp::from_millis(time.timestamp().as_millisecond())
}

fn wrong() -> NameError {
    NameError(
        "A freeze window is written like \"fri 16:00 - mon 08:00 Europe/Berlin\" or \"2026-12-23 18:00 - 2027-01-02 UTC\""
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).expect("a time")
    }

    fn freeze(text: &str) -> Freeze {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_weekend_is_frozen_from_its_first_to_before_its_last_moment() {
        let weekend = freeze("Friday 16:00 – mon 8:00");
        assert_eq!(weekend.to_string(), "fri 16:00 - mon 08:00 UTC");
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
            assert!(!weekend.is_over(at(time)));
        }
    }

    #[test]
    fn a_time_within_a_day_and_a_whole_week_are_windows_too() {
        let noon = freeze("wed 11:00 - wed 13:00");
        assert!(noon.end_of(at("2026-11-25T12:00:00Z")).is_some() && noon.end_of(at("2026-11-25T14:00:00Z")).is_none());
        let always = freeze("mon - mon");
        assert_eq!(always.end_of(at("2026-11-25T12:00:00Z")), Some(at("2026-11-30T00:00:00Z")));
    }

    #[test]
    fn a_time_zone_keeps_its_own_clock_through_summer_time() {
        let evening = freeze("mon 18:00 - mon 20:00 Europe/Berlin");
        assert!(evening.end_of(at("2026-07-20T16:30:00Z")).is_some(), "18:30 in summer");
        assert!(evening.end_of(at("2026-11-23T17:30:00Z")).is_some(), "18:30 in winter");
        assert!(evening.end_of(at("2026-11-23T16:30:00Z")).is_none());
        assert_eq!(evening.local(at("2026-11-23T19:00:00Z")), "Mon 2026-11-23 20:00 Europe/Berlin");
    }

    #[test]
    fn what_happens_once_is_over_some_time() {
        let holidays = freeze("2026-12-23 18:00 until 2027-01-02 europe/berlin");
        assert_eq!(holidays.to_string(), "2026-12-23 18:00 - 2027-01-02 00:00 Europe/Berlin");
        assert_eq!(freeze(&holidays.to_string()), holidays);
        let end = at("2027-01-01T23:00:00Z");
        for (time, frozen, over) in [
            ("2026-12-23T16:59:59Z", false, false),
            ("2026-12-23T17:00:00Z", true, false),
            ("2027-01-01T22:59:59Z", true, false),
            ("2027-01-01T23:00:00Z", false, true),
        ] {
            assert_eq!(
                (holidays.end_of(at(time)), holidays.is_over(at(time))),
                (frozen.then_some(end), over),
                "{time}"
            );
        }
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for bad in [
            "",
            "fri",
            "fri 16:00",
            "fri 16 - mon 8",
            "fri 24:00 - mon 08:00",
            "xyz 10:00 - mon 11:00",
            "fri 16:00 - 2027-01-02",
            "2027-01-02 - 2026-12-23",
            "2026-12-23 - 2026-12-23",
            "fri 16:00 - mon 08:00 Mars/Olympus",
            "fri 16:00 18:00 - mon 08:00",
            "- mon 08:00",
        ] {
            assert!(bad.parse::<Freeze>().is_err(), "{bad}");
        }
    }
}
