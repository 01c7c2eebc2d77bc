//! What a shared cache may do with an answer (RFC 9111, RFC 5861), and how old that is. No I/O.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_RANGE, DATE, EXPIRES, HeaderMap, HeaderName, PRAGMA, SET_COOKIE, TRAILER, VARY,
};
use model::Timestamp;

use super::directives::CacheControl;
use crate::headers::tokens;

/// Answers that may be kept. Not among them: parts, what concerns one client or one moment, and errors of the app, which somebody has to notice.
const STATUSES: [u16; 13] = [200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414];

/// What an answer allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    /// It is fresh for so long.
    pub(super) lifetime: Duration,
    /// After that it may be shown for so long while a new one is fetched.
    pub(super) while_revalidate: Duration,
    /// The same while the app fails.
    pub(super) if_error: Duration,
    /// It is for those as well who say who they are.
    pub(super) is_for_all: bool,
}

/// What an answer to this request allows, if it may be kept at all. Whose request `is_personal` said who it is.
pub(super) fn allowed(
    (request, is_personal): (&HeaderMap, bool),
    status: StatusCode,
    headers: &HeaderMap,
    now: Timestamp,
) -> Option<Allowed> {
    let said = CacheControl::of(headers);
    let is_old_no = !headers.contains_key(CACHE_CONTROL)
        && headers.get_all(PRAGMA).iter().flat_map(tokens).any(|item| item.eq_ignore_ascii_case("no-cache"));
    let is_for_all = said.public || said.must_revalidate || said.s_maxage.is_some();
    let is_forbidden =
        said.no_store || said.no_cache || said.private || is_old_no || CacheControl::of(request).no_store;
    let is_unfit = !STATUSES.contains(&status.as_u16())
        || [SET_COOKIE, CONTENT_RANGE, TRAILER].iter().any(|name| headers.contains_key(name))
        || vary(headers).is_none();
    if is_forbidden || is_unfit || (is_personal && !is_for_all) {
        return None;
    }
    let seconds = |number: Option<u64>| Duration::from_secs(number.unwrap_or_default());
    let lifetime = match said.s_maxage.or(said.max_age) {
        Some(number) => Duration::from_secs(number),
        None => until_expiry(headers, now)?,
    };
    let may_be_stale = !said.must_revalidate && !said.proxy_revalidate;
    let window = |number| if may_be_stale { seconds(number) } else { Duration::ZERO };
    let allowed = Allowed {
        lifetime,
        while_revalidate: window(said.stale_while_revalidate),
        if_error: window(said.stale_if_error),
        is_for_all,
    };
    let is_of_use = lifetime + allowed.while_revalidate.max(allowed.if_error) > Duration::ZERO;
    is_of_use.then_some(allowed)
}

/// From `Date` to `Expires`. A date that is none has passed (RFC 9111 section 5.3).
fn until_expiry(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let mut all = headers.get_all(EXPIRES).iter();
    let first = all.next()?;
    let expires = first.to_str().ok().and_then(date).filter(|_| all.all(|other| other == first));
    let from = of(headers, &DATE).unwrap_or(now);
    Some(expires.map_or(Duration::ZERO, |expires| expires.since(from)))
}

/// By which headers of requests the answers for an address differ, in one order; none if by more than headers.
pub(super) fn vary(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for value in headers.get_all(VARY) {
        for item in value.to_str().ok()?.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            // The asterisk is a name by its letters.
            names.push(item.parse::<HeaderName>().ok().filter(|_| item != "*")?);
        }
    }
    names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    names.dedup();
    Some(names)
}

/// How old an answer was when it came, which was asked for at one moment and came at another (RFC 9111 section 4.2.3).
pub(super) fn age_at_first(headers: &HeaderMap, asked: Timestamp, came: Timestamp) -> Duration {
    let apparent = of(headers, &DATE).map_or(Duration::ZERO, |date| came.since(date));
    // Of several the first counts (section 5.1); what is no number says nothing.
    let said = headers.get(AGE).and_then(|value| tokens(value).next()?.parse::<u32>().ok());
    let corrected = Duration::from_secs(said.unwrap_or_default().into()) + came.since(asked);
    apparent.max(corrected)
}

/// What a header says of a moment.
pub(super) fn of(headers: &HeaderMap, name: &HeaderName) -> Option<Timestamp> {
    date(headers.get(name)?.to_str().ok()?)
}

fn date(text: &str) -> Option<Timestamp> {
    let moment = httpdate::parse_http_date(text.trim()).ok()?;
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok().map(Timestamp::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(784_111_777_000);

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().expect("a value"));
        }
        headers
    }

    /// For how many seconds an answer with these headers is fresh, if it may be kept.
    fn fresh(pairs: &[(&'static str, &'static str)]) -> Option<u64> {
        allowed((&map(&[]), false), StatusCode::OK, &map(pairs), NOW).map(|it| it.lifetime.as_secs())
    }

    #[test]
    fn only_what_says_for_how_long_is_kept() {
        assert_eq!(fresh(&[]), None);
        assert_eq!(fresh(&[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"), ("cache-control", "public")]), None);
        assert_eq!(fresh(&[("cache-control", "max-age=60")]), Some(60));
        assert_eq!(fresh(&[("cache-control", "max-age=60, s-maxage=5")]), Some(5));
        assert_eq!(fresh(&[("cache-control", "max-age=0")]), None, "it would have to be asked for every time");
        assert_eq!(fresh(&[("cache-control", "s-maxage=0, stale-while-revalidate=9")]), Some(0));
        let expires = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        assert_eq!(fresh(&[expires]), Some(60));
        assert_eq!(fresh(&[expires, ("date", "Sun, 06 Nov 1994 08:50:07 GMT")]), Some(30));
        assert_eq!(fresh(&[expires, ("cache-control", "max-age=7")]), Some(7));
        assert_eq!(fresh(&[("expires", "0")]), None);
        assert_eq!(fresh(&[expires, ("expires", "Sun, 06 Nov 1994 08:59:37 GMT")]), None, "two are none");
        assert_eq!(fresh(&[expires, ("pragma", "no-cache")]), None);
    }

    #[test]
    fn what_is_for_one_client_or_one_moment_is_not_kept() {
        let good = ("cache-control", "public, max-age=60");
        for bad in [
            ("cache-control", "no-store"),
            ("cache-control", "private"),
            ("cache-control", "no-cache"),
            ("set-cookie", "a=b"),
            ("vary", "*"),
            ("vary", "accept, *"),
            ("content-range", "bytes 0-1/2"),
            ("trailer", "x"),
        ] {
            assert_eq!(fresh(&[good, bad]), None, "{bad:?}");
        }
        for status in [206, 304, 401, 416, 429, 500, 503] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(allowed((&map(&[]), false), status, &map(&[good]), NOW), None, "{status}");
        }
        let no_store = map(&[("cache-control", "no-store")]);
        assert_eq!(allowed((&no_store, false), StatusCode::OK, &map(&[good]), NOW), None);
    }

    #[test]
    fn what_somebody_gets_who_says_who_they_are_is_for_others_only_if_it_says_so() {
        let personal = |value| {
            allowed((&map(&[]), true), StatusCode::OK, &map(&[("cache-control", value)]), NOW).map(|it| it.is_for_all)
        };
        assert_eq!(personal("max-age=60"), None);
        for shared in ["public, max-age=60", "s-maxage=60", "max-age=60, must-revalidate"] {
            assert_eq!(personal(shared), Some(true), "{shared}");
        }
        assert_eq!(personal("private, s-maxage=60"), None);
    }

    #[test]
    fn who_must_be_asked_again_is_never_shown_late() {
        let late = |value| {
            let allowed = allowed((&map(&[]), false), StatusCode::OK, &map(&[("cache-control", value)]), NOW)?;
            Some((allowed.while_revalidate.as_secs(), allowed.if_error.as_secs()))
        };
        assert_eq!(late("max-age=1, stale-while-revalidate=5, stale-if-error=9"), Some((5, 9)));
        assert_eq!(late("max-age=1, stale-while-revalidate=5, must-revalidate"), Some((0, 0)));
        assert_eq!(late("max-age=1, stale-if-error=5, proxy-revalidate"), Some((0, 0)));
        assert_eq!(late("max-age=1"), Some((0, 0)));
    }

    #[test]
    fn an_answer_is_as_old_as_the_oldest_that_is_said_of_it() {
        let age = |pairs: &[_]| age_at_first(&map(pairs), NOW.before(Duration::from_secs(2)), NOW).as_secs();
        assert_eq!(age(&[]), 2, "it may have been made when it was asked for");
        assert_eq!(age(&[("age", "10")]), 12);
        assert_eq!(age(&[("age", "10"), ("age", "30")]), 12);
        assert_eq!(age(&[("age", "30, 10")]), 32);
        assert_eq!(age(&[("age", "-1")]), 2);
        assert_eq!(age(&[("age", "18446744073709551615")]), 2, "nothing overflows");
        assert_eq!(age(&[("date", "Sun, 06 Nov 1994 08:48:37 GMT")]), 60);
        assert_eq!(age(&[("date", "Sun, 06 Nov 1994 08:59:37 GMT")]), 2, "a clock that is ahead makes nothing younger");
    }

    #[test]
    fn headers_that_answers_vary_by_come_in_one_order() {
        let names = vary(&map(&[("vary", "Cookie, accept"), ("vary", "ACCEPT")])).expect("names");
        assert_eq!(names, ["accept", "cookie"]);
        assert_eq!(vary(&map(&[("vary", "")])), Some(Vec::new()));
        assert_eq!(vary(&map(&[("vary", "a b")])), None);
    }
}
