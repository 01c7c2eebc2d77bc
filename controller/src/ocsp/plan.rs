//! What is kept of an answer, and when the next one is asked for: pure functions of what is known.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use model::certificate::Staple as Shown;
use model::{SniEndpointId, Timestamp};

use super::answer::Answer;
use crate::acm;
use crate::store::{Staple, StapleStatus};

/// Shortest time between two questions about one certificate.
const SHORTEST: Duration = Duration::from_secs(60);
/// Longest time in which a responder is left alone because it wants that.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) why: String,
    /// How long the responder wants to be left alone.
    pub(super) asked: Option<Duration>,
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { why, asked: None }
    }
}

/// Of a certificate about which nobody can be asked: that does not change.
pub(super) fn nobody(why: String, now: Timestamp) -> Staple {
    let (status, due_at) = (StapleStatus::None, Timestamp::from_millis(i64::MAX));
    Staple { status, reason: Some(why), answer: None, failures: 0, due_at, updated_at: now }
}

/// Of an answer: it is shown if it is a good one, and another one is asked for at half of its life.
pub(super) fn answered(id: SniEndpointId, (answer, der): (Answer, &[u8]), now: Timestamp) -> Staple {
    let due_at = refresh(id, (answer.starts_at, answer.expires_at), now);
    let (status, shown) = match &answer.revoked {
        None => (StapleStatus::Good, Some(Shown { answer: BASE64.encode(der), expires_at: answer.expires_at })),
        // What helps visitors is another certificate.
        Some(_) => (StapleStatus::Revoked, None),
    };
    Staple { status, reason: answer.revoked, answer: shown, failures: 0, due_at, updated_at: now }
}

/// Of none: what is known stays as it is as long as it is good, and then there is nothing to show.
pub(super) fn refused(id: SniEndpointId, before: Option<&Staple>, refusal: Refusal, now: Timestamp) -> Staple {
    let failures = before.map_or(0, |before| before.failures).saturating_add(1);
    let pause = acm::pause(failures, refusal.asked.map(|asked| asked.min(LONGEST)));
    let due_at = now.after(pause).after(pause.mul_f64(chance(id, now) / 4.0));
    let unknown = |status, reason| Staple { status, reason, answer: None, failures, due_at, updated_at: now };
    match before {
        Some(Staple { status: StapleStatus::Revoked, reason, .. }) => unknown(StapleStatus::Revoked, reason.clone()),
        Some(Staple { answer: Some(shown), .. }) if now < shown.expires_at => Staple {
            status: StapleStatus::Good,
            reason: Some(refusal.why),
            // It is looked at when it expires as well.
            due_at: due_at.min(shown.expires_at),
            answer: Some(shown.clone()),
            failures,
            updated_at: now,
        },
        _ => unknown(StapleStatus::Failing, Some(refusal.why)),
    }
}

/// At half of an answer's life, a little earlier for each by chance; of one that came late, at half of what is left.
fn refresh(id: SniEndpointId, (starts_at, expires_at): (Timestamp, Timestamp), now: Timestamp) -> Timestamp {
    let half = expires_at.since(starts_at) / 2;
    let from = if now < starts_at.after(half) { starts_at } else { now };
    let half = expires_at.since(from) / 2;
    from.after(half.mul_f64(1.0 - chance(id, expires_at) / 10.0)).max(now.after(SHORTEST))
}

/// From 0 to 1, always the same for the same certificate and time.
fn chance(id: SniEndpointId, time: Timestamp) -> f64 {
    let mut hasher = DefaultHasher::new();
    (id.to_string(), time.as_millis()).hash(&mut hasher);
    f64::from(u16::try_from(hasher.finish() % 1000).unwrap_or_default()) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn hours(number: i64) -> Timestamp {
        Timestamp::from_millis(number * 3_600_000)
    }

    fn id(number: u32) -> SniEndpointId {
        format!("00000000-0000-4000-8000-{number:012}").parse().expect("an id")
    }

    fn good(now: Timestamp) -> Staple {
        let answer = Answer { revoked: None, starts_at: hours(0), expires_at: hours(100) };
        answered(id(1), (answer, b"der"), now)
    }

    fn away(before: Option<&Staple>, now: Timestamp) -> Staple {
        refused(id(1), before, "away".to_owned().into(), now)
    }

    #[test]
    fn an_answer_is_asked_for_again_at_half_of_its_life_but_not_all_at_once() {
        let due = |number| refresh(id(number), (hours(0), hours(100)), hours(1));
        let all: std::collections::BTreeSet<_> = (0..100).map(due).collect();
        assert!(all.iter().all(|due| (hours(45)..=hours(50)).contains(due)), "{all:?}");
        assert!(all.len() > 20, "spread: {all:?}");
        let late = refresh(id(1), (hours(0), hours(100)), hours(80));
        assert!((hours(89)..=hours(90)).contains(&late), "of what is left: {late}");
        let short = refresh(id(1), (hours(0), hours(0).after(SHORTEST)), hours(0));
        assert_eq!(short, hours(0).after(SHORTEST), "never over and over");
    }

    #[test]
    fn an_answer_is_shown_until_it_expires_when_there_is_no_other() {
        let shown = good(hours(1));
        assert_eq!((shown.status, shown.failures), (StapleStatus::Good, 0));
        let first = away(Some(&shown), hours(50));
        assert_eq!(
            (first.status, &first.answer, first.reason.as_deref()),
            (StapleStatus::Good, &shown.answer, Some("away"))
        );
        assert!((hours(50).after(SHORTEST)..hours(51)).contains(&first.due_at), "again soon: {}", first.due_at);
        let last = away(Some(&Staple { failures: 20, ..first }), hours(99));
        assert_eq!(last.due_at, hours(100), "looked at when it expires");
        let gone = away(Some(&last), hours(100));
        assert_eq!((gone.status, &gone.answer), (StapleStatus::Failing, &None));
        assert!(gone.due_at >= hours(100).after(24 * HOUR), "ever later");
        assert_eq!(good(hours(1)).reason, None);
    }

    #[test]
    fn what_was_taken_back_stays_so_until_its_authority_says_otherwise() {
        let said = Answer { revoked: Some("revoked".to_owned()), starts_at: hours(0), expires_at: hours(100) };
        let revoked = answered(id(1), (said, b"der"), hours(1));
        assert_eq!((revoked.status, &revoked.answer), (StapleStatus::Revoked, &None));
        let later = away(Some(&revoked), hours(200));
        assert_eq!((later.status, later.reason.as_deref()), (StapleStatus::Revoked, Some("revoked")));
    }

    #[test]
    fn a_responder_that_wants_to_be_left_alone_is_for_a_day_at_most() {
        let asked = |hours: u32| Refusal { why: String::new(), asked: Some(HOUR * hours) };
        let due = |hours_asked| refused(id(1), None, asked(hours_asked), hours(0)).due_at;
        assert!((hours(3)..hours(4)).contains(&due(3)), "{}", due(3));
        assert!((hours(24)..=hours(30)).contains(&due(1000)), "{}", due(1000));
    }
}
