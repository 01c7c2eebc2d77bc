//! What a message says to caches in `Cache-Control` (RFC 9111 section 5.2).

use http::header::{CACHE_CONTROL, HeaderMap};

/// Most seconds that anything is said for: what is longer, or no number that fits, is as good as for ever (RFC 9111 section 1.2.2).
const LONGEST: u64 = 1 << 31;

/// What is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a directive, and none depends on another")]
pub(super) struct CacheControl {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) private: bool,
    pub(super) public: bool,
    pub(super) must_revalidate: bool,
    pub(super) proxy_revalidate: bool,
    pub(super) max_age: Option<u64>,
    pub(super) s_maxage: Option<u64>,
    pub(super) stale_while_revalidate: Option<u64>,
    pub(super) stale_if_error: Option<u64>,
}

impl CacheControl {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        for line in headers.get_all(CACHE_CONTROL) {
            match line.to_str() {
                Ok(line) => items(line).for_each(|item| said.note(item)),
                // What nobody can read may be a prohibition.
                Err(_) => said.no_store = true,
            }
        }
        said
    }

    fn note(&mut self, item: &str) {
        let (name, value) = item.split_once('=').map_or((item, None), |(name, value)| (name, Some(value)));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" => self.no_store = true,
            // Of single headers, too: then nothing is kept rather than a part.
            "no-cache" => self.no_cache = true,
            "private" => self.private = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "max-age" => shorten(&mut self.max_age, value),
            "s-maxage" => shorten(&mut self.s_maxage, value),
            "stale-while-revalidate" => shorten(&mut self.stale_while_revalidate, value),
            "stale-if-error" => shorten(&mut self.stale_if_error, value),
            _ => {}
        }
    }
}

/// The items of a list, in which a comma between quotation marks ends none.
fn items(line: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    line.split(move |letter| {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ',' => return !is_quoted,
            _ => {}
        }
        false
    })
    .map(str::trim)
}

/// Of times that contradict each other the shortest counts, and what is no time is none.
fn shorten(time: &mut Option<u64>, value: Option<&str>) {
    let text = value.unwrap_or_default().trim();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // Digits that are no number that fits are too many.
    let said = if is_number { text.parse().unwrap_or(LONGEST).min(LONGEST) } else { 0 };
    *time = Some(time.map_or(said, |before| before.min(said)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &[&'static str]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, line.parse().expect("a value"));
        }
        CacheControl::of(&headers)
    }

    #[test]
    fn directives_are_read_in_any_case_and_from_any_line() {
        let both = said(&["Public , MAX-AGE=60", "s-maxage = \"30\""]);
        assert_eq!(both, CacheControl { public: true, max_age: Some(60), s_maxage: Some(30), ..said(&[]) });
        assert!(said(&["private=\"set-cookie, x\""]).private && said(&["no-cache=\"x\""]).no_cache);
        assert_eq!(said(&["x=\"no-store, max-age=1\", y=\"\\\",no-store\", max-age=7"]).max_age, Some(7));
        assert!(!said(&["x=\"no-store, max-age=1\", y=\"\\\",no-store\""]).no_store);
    }

    #[test]
    fn a_time_that_is_none_or_doubtful_is_the_shortest() {
        let age = |line: &'static str| said(&[line]).max_age;
        for none in ["max-age", "max-age=", "max-age=-1", "max-age=1.5", "max-age=soon", "max-age=0x10", "max-age=\"9"]
        {
            assert_eq!(age(none), Some(0), "{none}");
        }
        assert_eq!(age("max-age=60, max-age=10"), Some(10));
        assert_eq!(age("max-age=99999999999999999999999"), Some(LONGEST));
        assert_eq!(age("max-age=060"), Some(60));
    }

    #[test]
    fn what_cannot_be_read_forbids() {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, http::HeaderValue::from_bytes(b"max-age=60, \xff").expect("a value"));
        assert!(CacheControl::of(&headers).no_store);
    }
}
