//! When what is tried: pure functions of what is known.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use instant_acme::ChallengeType;
use model::{DomainId, Hostname, Timestamp};

use crate::store::AcmStatus;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Pauses after failures in a row; the last one is for all that follow. In the first hour most DNS records arrive.
const PAUSES: [Duration; 7] = [
    MINUTE,
    Duration::from_secs(2 * 60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(60 * 60),
    Duration::from_secs(6 * 60 * 60),
    DAY,
];
/// From so many failures in a row on a domain has failed, and not only fails.
const GIVEN_UP: u32 = 6;

/// How long to wait after so many failures in a row; longer, if the authority says so.
pub(crate) fn pause(failures: u32, asked: Option<Duration>) -> Duration {
    let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX).min(PAUSES.len() - 1);
    PAUSES[index].max(asked.unwrap_or_default())
}

/// What a domain is after so many failures in a row.
pub(super) fn status(failures: u32) -> AcmStatus {
    if failures < GIVEN_UP { AcmStatus::Failing } else { AcmStatus::Failed }
}

/// When a certificate is renewed: at two thirds of its life, a little earlier for each by chance, so that those which were made at once are not
/// renewed at once; and within the time that the authority suggests, if that comes before.
pub(super) fn renewal(
    domain: DomainId,
    (starts, expires): (Timestamp, Timestamp),
    suggested: Option<(Timestamp, Timestamp)>,
) -> Timestamp {
    let chance = chance(domain, expires);
    let at = |from: Timestamp, to: Timestamp, per_mille: i64| {
        let span = to.as_millis().saturating_sub(from.as_millis()).max(0);
        Timestamp::from_millis(from.as_millis().saturating_add(span / 1000 * per_mille))
    };
    let two_thirds = at(starts, expires, 666 - chance / 25);
    suggested.map_or(two_thirds, |(from, to)| two_thirds.min(at(from, to, chance)))
}

/// When a certificate is replaced that its authority has taken back: not on the day on which it came, for an authority that takes everything
/// back would be asked over and over.
pub(super) fn replacement(came: Timestamp) -> Timestamp {
    came.after(DAY)
}

/// When a certificate is looked at next: at its renewal, and once a day to hear whether the authority wants it earlier.
pub(super) fn next_look(renewal: Timestamp, now: Timestamp, is_told: bool) -> Timestamp {
    if is_told { renewal.min(now.after(DAY)) } else { renewal }.max(now.after(MINUTE))
}

/// From 0 to 999, always the same for the same certificate.
fn chance(domain: DomainId, expires: Timestamp) -> i64 {
    let mut hasher = DefaultHasher::new();
    (domain.to_string(), expires.as_millis()).hash(&mut hasher);
    i64::try_from(hasher.finish() % 1000).unwrap_or_default()
}

/// How to show an authority that a host is this platform's, one after the other.
pub(super) fn challenges(host: &Hostname, has_tls: bool, has_hook: bool) -> Vec<ChallengeType> {
    let mut kinds = Vec::new();
    if !host.as_str().starts_with("*.") {
        kinds.push(ChallengeType::Http01);
        kinds.extend(has_tls.then_some(ChallengeType::TlsAlpn01));
    }
    kinds.extend(has_hook.then_some(ChallengeType::Dns01));
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(number: i64) -> Timestamp {
        Timestamp::from_millis(number * 86_400_000)
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_but_not_all_at_once() {
        let id = |number: u32| -> DomainId { format!("00000000-0000-4000-8000-{number:012}").parse().expect("an id") };
        let times: Vec<_> = (0..100).map(|number| renewal(id(number), (days(0), days(90)), None)).collect();
        assert!(times.iter().all(|time| (days(56)..=days(60)).contains(time) && *time < days(61)), "{times:?}");
        let distinct: std::collections::BTreeSet<_> = times.iter().map(|time| time.as_millis() / 3_600_000).collect();
        assert!(distinct.len() > 20, "spread over days: {distinct:?}");
        assert_eq!(renewal(id(1), (days(0), days(90)), None), times[1], "the same whenever it is asked");
        let soon = renewal(id(1), (days(0), days(90)), Some((days(10), days(11))));
        assert!((days(10)..days(11)).contains(&soon), "the authority wants it back");
        assert_eq!(renewal(id(1), (days(0), days(90)), Some((days(70), days(80)))), times[1]);
        // Certificates of six days.
        assert!((days(3)..=days(4)).contains(&renewal(id(1), (days(0), days(6)), None)));
    }

    #[test]
    fn failures_are_tried_again_ever_later_and_never_for_the_last_time() {
        assert_eq!([1, 2, 5, 7, 1000].map(|failures| pause(failures, None).as_secs()), [60, 120, 3600, 86_400, 86_400]);
        assert_eq!(pause(1, Some(Duration::from_secs(7200))).as_secs(), 7200, "the authority knows better");
        assert_eq!(pause(7, Some(Duration::from_secs(1))), DAY);
        assert_eq!([1, 5, 6].map(status), [AcmStatus::Failing, AcmStatus::Failing, AcmStatus::Failed]);
        let now = days(3);
        assert_eq!(next_look(days(60), now, false), days(60));
        assert_eq!(next_look(days(60), now, true), days(4));
        assert_eq!(next_look(days(1), now, true), now.after(MINUTE), "never over and over");
    }

    #[test]
    fn only_dns_speaks_for_a_wildcard() {
        let of = |host: &str, tls, hook| challenges(&host.parse().expect("a host name"), tls, hook);
        assert_eq!(of("www.example.com", true, false), [ChallengeType::Http01, ChallengeType::TlsAlpn01]);
        assert_eq!(of("www.example.com", false, true), [ChallengeType::Http01, ChallengeType::Dns01]);
        assert_eq!(of("*.example.com", true, true), [ChallengeType::Dns01]);
        assert_eq!(of("*.example.com", true, false), []);
    }
}
