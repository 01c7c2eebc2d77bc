//! Parts of lists: `Range: version ]5..; max=10, order=desc` in, 206 and `Next-Range` out.

use std::cmp::Ordering;
use std::convert::Infallible;
use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::describe::{Description, Input, Output};
use crate::store::{Edge, Part, Slice};

const DEFAULT_MAX: usize = 200;
const LIMIT: usize = 1000;
/// Between a value and an id that tells it from its like.
const TIE: char = '~';
const NEXT_RANGE: HeaderName = HeaderName::from_static("next-range");

/// Which part of a list is wanted. Anything unclear is as good as not said: clients send many things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range(pub(super) Slice);

/// The wanted part of a list of `T`: 200 if it ends the list, 206 if there is more.
#[derive(Debug)]
pub(super) struct Page<T> {
    /// A JSON array.
    json: Vec<u8>,
    next: Option<String>,
    of: PhantomData<T>,
}

impl<S: Send + Sync> FromRequestParts<S> for Range {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let value = parts.headers.get(header::RANGE).map(HeaderValue::as_bytes).unwrap_or_default();
        Ok(Self(parse(&String::from_utf8_lossy(value))))
    }
}

impl Range {
    /// A part that the store found, put on the wire.
    pub(super) fn part<T: Serialize>(&self, part: Part<T>) -> Page<T> {
        Page::new(&part.items, part.next.map(|edge| self.next(part.field, &edge)))
    }

    /// The wanted part of `items`, which are all there are: few, or nowhere in the database. They are sorted by `default`
    /// unless the request names another of their fields.
    pub(super) fn page<T: Serialize>(&self, items: impl IntoIterator<Item = T>, default: &str) -> Page<T> {
        let Self(slice) = self;
        let mut items: Vec<_> = items.into_iter().map(|item| serde_json::to_value(item).unwrap_or_default()).collect();
        let is_known = |field: &&String| items.first().is_some_and(|item| item.get(field.as_str()).is_some());
        let field = slice.field.as_ref().filter(is_known).map_or(default, String::as_str);
        items.sort_by_cached_key(|item| place(item, field));
        if slice.descending {
            items.reverse();
        }
        if slice.field.as_deref().is_none_or(|wanted| wanted == field) {
            items.retain(|item| is_inside(slice, &place(item, field)));
        }
        let next = items.get(slice.max).map(|beyond| self.next(field, &edge(&items[slice.max - 1], beyond, field)));
        items.truncate(slice.max);
        Page::new(&items, next)
    }

    /// The range of the part behind `edge`.
    fn next(&self, field: &str, edge: &str) -> String {
        let Self(Slice { max, last, descending, .. }) = self;
        let end = last.as_ref().map(|last| format!("{}{}", last.value, if last.exclusive { "[" } else { "" }));
        let order = if *descending { ",order=desc" } else { "" };
        format!("{field} ]{edge}..{}; max={max}{order}", end.unwrap_or_default())
    }
}

impl<T> Page<T> {
    fn new(items: &[impl Serialize], next: Option<String>) -> Self {
        // What answers are made of can always be written.
        Self { json: serde_json::to_vec(items).unwrap_or_default(), next, of: PhantomData }
    }
}

/// Where an item stands in a list that is sorted by a field. Several may have the same there: their ids decide.
type Place = (Result<u64, String>, String);

fn place(item: &Value, field: &str) -> Place {
    (sortable(&item[field]), plain(&item["id"]))
}

fn sortable(value: &Value) -> Result<u64, String> {
    value.as_u64().ok_or_else(|| plain(value))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What tells an item from the one behind it: mostly its field, as people read it.
fn edge(item: &Value, beyond: &Value, field: &str) -> String {
    let value = plain(&item[field]);
    if item[field] == beyond[field] { format!("{value}{TIE}{}", plain(&item["id"])) } else { value }
}

/// Edges count in the direction of travel: with `order=desc`, `]5..` is what comes after 5, so below it.
fn is_inside(slice: &Slice, place: &Place) -> bool {
    let travel = |edge: &Edge| {
        let order = compare(place, edge);
        if slice.descending { order.reverse() } else { order }
    };
    let begins = slice.first.as_ref().is_none_or(|first| {
        let order = travel(first);
        order == Ordering::Greater || (order == Ordering::Equal && !first.exclusive)
    });
    let ends = slice.last.as_ref().is_none_or(|last| {
        let order = travel(last);
        order == Ordering::Less || (order == Ordering::Equal && !last.exclusive)
    });
    begins && ends
}

fn compare((value, id): &Place, edge: &Edge) -> Ordering {
    let typed = |text: &str| match (value, text.parse()) {
        (Ok(_), Ok(number)) => Ok(number),
        _ => Err(text.to_owned()),
    };
    match edge.value.rsplit_once(TIE) {
        Some((start, tie)) if *value == typed(start) => id.as_str().cmp(tie),
        _ => value.cmp(&typed(&edge.value)),
    }
}

/// Reads a `Range`. Whatever the text is, there is a part that it means.
pub fn parse(text: &str) -> Slice {
    let (what, options) = text.split_once(';').unwrap_or((text, ""));
    let mut slice = Slice { max: DEFAULT_MAX, ..Slice::default() };
    if let Some((field, span)) = what.trim().split_once(' ') {
        slice.field = Some(field.to_owned());
        (slice.first, slice.last) = parse_span(span.trim());
    }
    for option in options.split([',', ';']) {
        match option.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
            Some(("max", max)) => slice.max = max.parse().unwrap_or(DEFAULT_MAX).clamp(1, LIMIT),
            Some(("order", order)) => slice.descending = order.eq_ignore_ascii_case("desc"),
            _ => {}
        }
    }
    slice
}

/// `..`, `a..b`, `[a..b]`, `]a..b[`: a bracket that points away from the span leaves its end out.
fn parse_span(span: &str) -> (Option<Edge>, Option<Edge>) {
    let Some((first, last)) = span.split_once("..") else { return (None, None) };
    let edge = |text: &str, outward: char| {
        let value = text.trim().trim_matches(['[', ']']).to_owned();
        (!value.is_empty()).then(|| Edge { value, exclusive: text.contains(outward) })
    };
    (edge(first, ']'), edge(last, '['))
}

impl<T> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let whole = ([(header::CONTENT_TYPE, "application/json")], self.json);
        match self.next.and_then(|next| HeaderValue::from_bytes(next.as_bytes()).ok()) {
            Some(next) => (StatusCode::PARTIAL_CONTENT, [(NEXT_RANGE, next)], whole).into_response(),
            None => whole.into_response(),
        }
    }
}

impl Input for Range {
    fn describe(description: &mut Description<'_>) {
        description
            .header("Range", "Which part, as `version ]5..; max=10, order=desc`; at most 1000, 200 if not said.");
    }
}

impl<T: ToSchema> Output for Page<T> {
    fn describe(description: &mut Description<'_>) {
        let schema = json!({ "type": "array", "items": description.written::<T>() });
        description.answer(200, "The list, or its last part.", &schema);
        let next = json!({ "description": "The `Range` of the next part.", "schema": { "type": "string" } });
        description.answer(206, "A part of the list.", &schema)["headers"] = json!({ "Next-Range": next });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(page: &Page<Value>) -> Vec<Value> {
        serde_json::from_slice(&page.json).expect("a list")
    }

    fn page(range: &str) -> (Vec<u64>, Option<String>) {
        let items = (1..=12).map(|version| json!({"version": version, "id": format!("id-{version:02}")}));
        let page: Page<Value> = Range(parse(range)).page(items, "version");
        (listed(&page).iter().filter_map(|item| item["version"].as_u64()).collect(), page.next)
    }

    #[test]
    fn order_and_max_are_applied_in_every_spelling() {
        for range in ["version ..; order=desc,max=1", "version ..; max=1, order=desc", "version ..;max=1;order=desc"] {
            assert_eq!(page(range), (vec![12], Some("version ]12..; max=1,order=desc".to_owned())), "{range}");
        }
        for range in ["", "id ..; max=1000;", "id ..; max=1000", "version ..; ;", "nonsense", "version x; max=no"] {
            assert_eq!(page(range), ((1..=12).collect(), None), "{range}");
        }
        assert_eq!(page("name ..; max=2").0, [1, 2], "an unknown field leaves the usual order");
    }

    #[test]
    fn following_next_range_visits_everything_once() {
        for start in
            ["version ..; max=5", "version ..; max=5,order=desc", "id ..; max=1,order=desc", "version ]2..7; max=2"]
        {
            let (mut visited, mut next) = page(start);
            while let Some(range) = next {
                let (more, after) = page(&range);
                visited.extend(more);
                next = after;
            }
            let mut sorted = visited.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), visited.len(), "{start}");
            let expected = if start.contains("]2") { (3..=7).collect() } else { (1..=12).collect::<Vec<_>>() };
            assert_eq!(sorted, expected, "{start}");
        }
        assert_eq!(page("version 3..5").0, [3, 4, 5]);
        assert_eq!(page("version [3..5]").0, [3, 4, 5]);
        assert_eq!(page("version ]3..5[").0, [4]);
    }

    #[test]
    fn what_has_the_same_value_is_not_lost_between_two_parts() {
        let items: Vec<_> = (0..12).map(|n| json!({"state": n % 2 == 0, "id": format!("id-{n:02}")})).collect();
        for range in ["state ..; max=1", "state ..; max=5,order=desc"] {
            let (mut visited, mut next) = (Vec::new(), Some(range.to_owned()));
            while let Some(range) = next {
                let page: Page<Value> = Range(parse(&range)).page(items.clone(), "id");
                visited.extend(listed(&page).iter().map(|item| plain(&item["id"])));
                next = page.next;
            }
            visited.sort();
            assert_eq!(visited, items.iter().map(|item| plain(&item["id"])).collect::<Vec<_>>(), "{range}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_means_some_part(text in ".{0,80}") {
            check(&text);
        }

        #[test]
        fn any_likely_text_means_some_part(text in "[a-z]{0,3} [\\]\\[]?[0-9a-z~.]{0,4}\\.{0,3}[0-9]{0,3}[\\[\\]]?;[ ,;=a-z0-9-]{0,20}") {
            check(&text);
        }
    }

    /// What the fuzzer checks too, see `fuzz/`.
    fn check(text: &str) {
        let slice = parse(text);
        assert!((1..=LIMIT).contains(&slice.max), "{text:?}");
        let page: Page<Value> = Range(slice.clone()).page((1..=12).map(|id| json!({"id": id})), "id");
        assert!(listed(&page).len() <= slice.max);
        if let Some(next) = page.next {
            let read = parse(&next);
            assert_eq!((read.max, read.descending), (slice.max, slice.descending), "{text:?} {next:?}");
        }
    }
}
