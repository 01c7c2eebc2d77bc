//! Parts of lists: `Range: version ]5..; max=10, order=desc` in, 206 and `Next-Range` out.

use std::cmp::Ordering;
use std::convert::Infallible;
use std::marker::PhantomData;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::describe::{Description, Input, Output};

const DEFAULT_MAX: usize = 200;
const LIMIT: usize = 1000;
const NEXT_RANGE: HeaderName = HeaderName::from_static("next-range");

/// Which part of a list is wanted. Anything unclear is as good as not said: clients send many things.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Range {
    field: Option<String>,
    first: Option<Bound>,
    last: Option<Bound>,
    max: Option<usize>,
    descending: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    value: String,
    exclusive: bool,
}

/// The wanted part of a list of `T`: 200 if it ends the list, 206 if there is more.
#[derive(Debug)]
pub(super) struct Page<T> {
    items: Vec<Value>,
    next: Option<String>,
    of: PhantomData<T>,
}

impl<S: Send + Sync> FromRequestParts<S> for Range {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let value = parts.headers.get(header::RANGE).and_then(|value| value.to_str().ok());
        Ok(Self::parse(value.unwrap_or_default()))
    }
}

impl Range {
    fn parse(text: &str) -> Self {
        let (what, options) = text.split_once(';').unwrap_or((text, ""));
        let mut range = Self::default();
        if let Some((field, span)) = what.trim().split_once(' ') {
            range.field = Some(field.to_owned());
            (range.first, range.last) = parse_span(span.trim());
        }
        for option in options.split([',', ';']) {
            match option.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
                Some(("max", max)) => range.max = max.parse().ok(),
                Some(("order", order)) => range.descending = order.eq_ignore_ascii_case("desc"),
                _ => {}
            }
        }
        range
    }

    /// The wanted part of `items`, which are sorted by `default` unless the request names another of their fields.
    pub(super) fn page<T: Serialize>(&self, items: impl IntoIterator<Item = T>, default: &str) -> Page<T> {
        // What answers are made of can always be written.
        let mut items: Vec<_> = items.into_iter().map(|item| serde_json::to_value(item).unwrap_or_default()).collect();
        let is_known = |field: &&String| items.first().is_some_and(|item| item.get(field.as_str()).is_some());
        let field = self.field.as_ref().filter(is_known).map_or(default, String::as_str);
        let of = |item: &Value| item.get(field).cloned().unwrap_or_default();
        items.sort_by(|a, b| compare(&of(a), &of(b)));
        if self.descending {
            items.reverse();
        }
        if field == self.field.as_deref().unwrap_or(default) {
            items.retain(|item| self.is_inside(&of(item)));
        }
        let max = self.max.unwrap_or(DEFAULT_MAX).clamp(1, LIMIT);
        let more = items.len() > max;
        items.truncate(max);
        let next = items.last().filter(|_| more).map(|last| {
            let order = if self.descending { ",order=desc" } else { "" };
            let end = self.last.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{field} ]{}..{end}; max={max}{order}", plain(&of(last)))
        });
        Page { items, next, of: PhantomData }
    }

    /// Bounds count in the direction of travel: with `order=desc`, `]5..` is what comes after 5, so below it.
    fn is_inside(&self, value: &Value) -> bool {
        let travel = |bound: &Bound| {
            let order = compare(value, &bound.typed_like(value));
            if self.descending { order.reverse() } else { order }
        };
        let starts = self.first.as_ref().is_none_or(|first| {
            let order = travel(first);
            order == Ordering::Greater || (order == Ordering::Equal && !first.exclusive)
        });
        let ends = self.last.as_ref().is_none_or(|last| {
            let order = travel(last);
            order == Ordering::Less || (order == Ordering::Equal && !last.exclusive)
        });
        starts && ends
    }
}

impl Bound {
    fn typed_like(&self, value: &Value) -> Value {
        match self.value.parse::<u64>() {
            Ok(number) if value.is_number() => number.into(),
            _ => Value::String(self.value.clone()),
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.value, if self.exclusive { "[" } else { "" })
    }
}

impl<T> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let Some(next) = self.next.and_then(|next| HeaderValue::from_str(&next).ok()) else {
            return Json(self.items).into_response();
        };
        (StatusCode::PARTIAL_CONTENT, [(NEXT_RANGE, next)], Json(self.items)).into_response()
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

/// `..`, `a..b`, `[a..b]`, `]a..b[`: a bracket that points away from the span leaves its end out.
fn parse_span(span: &str) -> (Option<Bound>, Option<Bound>) {
    let Some((first, last)) = span.split_once("..") else { return (None, None) };
    let bound = |text: &str, outward: char| {
        let exclusive = text.trim().trim_matches(|c| c != outward).contains(outward);
        let value = text.trim().trim_matches(['[', ']']).to_owned();
        (!value.is_empty()).then_some(Bound { value, exclusive })
    };
    (bound(first, ']'), bound(last, '['))
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_u64(), b.as_u64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => plain(a).cmp(&plain(b)),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(range: &str) -> (Vec<u64>, Option<String>) {
        let items = (1..=12).map(|version| json!({"version": version, "id": format!("id-{version:02}")}));
        let page: Page<Value> = Range::parse(range).page(items, "version");
        (page.items.iter().filter_map(|item| item["version"].as_u64()).collect(), page.next)
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
}
