//! What a person sees when there is no app to answer. Self-contained pages: they must load when nothing else does.

use std::fmt::Write;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use model::{OwnPage, RoutePolicy};

use crate::failure::Failure;

/// The words of a page; every part is escaped when it is put on one.
struct Page<'a> {
    title: &'a str,
    text: &'a str,
    /// For whoever runs the app.
    hint: String,
    /// Small print: the code and the request's id.
    footer: String,
}

/// Seconds after which an app in maintenance may be asked again, one that has too much to do, and one that did not answer.
const MAINTENANCE: HeaderValue = HeaderValue::from_static("120");
const BACKLOG: HeaderValue = HeaderValue::from_static("5");
const UNAVAILABLE: HeaderValue = HeaderValue::from_static("10");

/// In which form a client wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    Html,
    Json,
    Text,
}

impl Wants {
    /// As `Accept` says (RFC 9110 section 12.5.1): a page, unless something else is wanted more.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        // How much, and whether by name, of each.
        let mut best = [(Self::Html, (0, false)), (Self::Json, (0, false)), (Self::Text, (0, false))];
        let lines = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in lines.flat_map(|line| line.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            let is_meant = |wants| match wants {
                Self::Html => matches!(kind, "text/html" | "application/xhtml+xml"),
                Self::Json => kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json"),
                Self::Text => kind == "text/plain",
            };
            for (wants, how_much) in &mut best {
                let is_any = matches!((*wants, kind), (_, "*/*") | (Self::Html | Self::Text, "text/*"));
                if is_meant(*wants) || is_any {
                    // To a thousandth, as the grammar has it.
                    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1000")]
                    let weight = (weight.clamp(0.0, 1.0) * 1000.0) as u32;
                    *how_much = (*how_much).max((weight, is_meant(*wants) && weight > 0));
                }
            }
        }
        let (mut wants, mut most) = best[0];
        for (other, how_much) in &best[1..] {
            if *how_much > most {
                (wants, most) = (*other, *how_much);
            }
        }
        wants
    }
}

/// The page for a request to `app` that failed.
pub(crate) fn failure(failure: Failure, app: &str, request_id: &str, wants: Wants) -> Response<Bytes> {
    let logs = format!("platform logs --tail --app {app}");
    let (title, text, hint) = match failure {
        Failure::Maintenance => (
            "Offline for maintenance",
            "This application is undergoing maintenance. Please check back in a few minutes.",
            format!("platform maintenance:off --app {app}"),
        ),
        Failure::Blank => (
            "There is nothing here yet",
            "This application has been created, but nothing has been deployed to it.",
            "git push platform main".to_owned(),
        ),
        Failure::NoWeb => (
            "This application is not running",
            "It has no web process at the moment.",
            format!("platform ps:scale --app {app}"),
        ),
        Failure::BodyTooLarge => (
            "Too much to send",
            "This application does not take as much in one request.",
            format!("platform routing max_body=... --app {app}"),
        ),
        Failure::Backlog => (
            "Too many requests",
            "This application has as much to do as it can. Please try again in a moment.",
            format!("platform routing --app {app}"),
        ),
        Failure::BadChunk => ("Bad request", "The body of the request is malformed.", String::new()),
        Failure::RequestTimeout | Failure::BootTimeout | Failure::IdleConnection => {
            ("Application error", "The application took too long to answer. Please try again in a moment.", logs)
        }
        Failure::Exhausted => (
            "Too many connections",
            "This application has as many connections as there can be. Please try again in a moment.",
            logs,
        ),
        _ => (
            "Application error",
            "An error occurred in the application and your page could not be served. Please try again in a moment.",
            logs,
        ),
    };
    let look = failure.look();
    let footer = format!("{} · request {request_id}", look.code);
    let mut response = respond(look.status, &Page { title, text, hint, footer }, (look.code, wants));
    let again = match failure {
        Failure::Maintenance => Some(MAINTENANCE),
        Failure::Backlog => Some(BACKLOG),
        _ => (look.status == StatusCode::SERVICE_UNAVAILABLE).then_some(UNAVAILABLE),
    };
    response.headers_mut().extend(again.map(|seconds| (RETRY_AFTER, seconds)));
    response
}

/// The same with the app's own page, if it has one for that and a page is wanted.
pub(crate) fn own(failure: Failure, policy: &RoutePolicy, wants: Wants, page: Response<Bytes>) -> Response<Bytes> {
    let own = match failure {
        Failure::Maintenance => policy.maintenance_page.as_ref(),
        // The visitor's own doing, or nobody's page yet.
        Failure::BodyTooLarge | Failure::BadChunk | Failure::Blank => None,
        _ => policy.error_page.as_ref(),
    };
    let title = if failure == Failure::Maintenance { "Offline for maintenance" } else { "Application error" };
    match own.filter(|_| wants == Wants::Html) {
        None => page,
        Some(OwnPage::Html(html)) => page.map(|_| html.clone().into()),
        Some(OwnPage::At(url)) => page.map(|_| frame(title, url).into()),
    }
}

/// What is at `url`, and nothing else.
fn frame(title: &str, url: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>html,body{{margin:0;height:100%}}iframe{{position:fixed;width:100%;height:100%;border:0}}\
         </style></head>\n<body><iframe src=\"{}\"></iframe></body></html>\n",
        escape(url)
    )
}

/// The page for a host that no app has.
pub(crate) fn no_such_app(host: &str, wants: Wants) -> Response<Bytes> {
    let page = Page {
        title: "No such app",
        text: "There is no application at this address.",
        hint: format!("platform domains:add {host} --app <name>"),
        footer: host.to_owned(),
    };
    respond(StatusCode::NOT_FOUND, &page, ("no_such_app", wants))
}

/// The page for a request that is refused for what it is or who sent it.
pub(crate) fn refused(status: StatusCode, reason: &str, wants: Wants) -> Response<Bytes> {
    let title = status.canonical_reason().unwrap_or("Bad request");
    let id = title.to_ascii_lowercase().replace(' ', "_");
    let page = Page { title, text: reason, hint: String::new(), footer: status.as_u16().to_string() };
    respond(status, &page, (&id, wants))
}

/// The answer while the platform's own API is away: a page for people, JSON for programs.
pub(crate) fn platform_unavailable(wants_html: bool) -> Response<Bytes> {
    const TEXT: &str = "The platform is starting or being updated. Running applications are not affected.";
    let mut response = if wants_html {
        let page = Page { title: "Back in a moment", text: TEXT, hint: String::new(), footer: "503".to_owned() };
        respond(StatusCode::SERVICE_UNAVAILABLE, &page, ("unavailable", Wants::Html))
    } else {
        let page = Page { title: "", text: TEXT, hint: String::new(), footer: String::new() };
        respond(StatusCode::SERVICE_UNAVAILABLE, &page, ("unavailable", Wants::Json))
    };
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
    response
}

/// `id` is what programs know it by.
fn respond(status: StatusCode, page: &Page<'_>, (id, wants): (&str, Wants)) -> Response<Bytes> {
    let (body, kind) = match wants {
        Wants::Html => (render(page), "text/html; charset=utf-8"),
        Wants::Json => (serde_json::json!({ "id": id, "message": page.text }).to_string(), "application/json"),
        Wants::Text => (format!("{}: {}\n{}\n", page.title, page.text, page.footer), "text/plain; charset=utf-8"),
    };
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    response
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{margin:0;min-height:100vh;display:grid;place-items:center;font:16px/1.6 system-ui,sans-serif;background:#f6f5fa;color:#2a2740}\
main{max-width:32rem;padding:2rem;text-align:center}\
h1{font-size:1.9rem;font-weight:600;margin:0 0 .75rem}\
p{margin:0 0 1.25rem}\
code{display:inline-block;padding:.4rem .8rem;border-radius:.4rem;background:#e7e4f2;font:.9rem ui-monospace,monospace;overflow-wrap:anywhere}\
aside{font-size:.9rem;opacity:.75}\
footer{margin-top:2.5rem;font-size:.8rem;opacity:.55;overflow-wrap:anywhere}\
@media(prefers-color-scheme:dark){body{background:#17151f;color:#e9e6f5}code{background:#2b2839}}";

fn render(page: &Page<'_>) -> String {
    let (title, text, footer) = (escape(page.title), escape(page.text), escape(&page.footer));
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><main><h1>{title}</h1>\n<p>{text}</p>\n"
    );
    if !page.hint.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(html, "<aside><p>If it is yours:</p><code>{}</code></aside>", escape(&page.hint));
    }
    let _ = writeln!(html, "<footer>{footer}</footer></main></body></html>");
    html
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_client_sent_is_escaped() {
        let page = refused(StatusCode::BAD_REQUEST, "<script>alert(\"1\")</script>&'", Wants::Html);
        let html = String::from_utf8(page.body().to_vec()).expect("UTF-8");
        assert!(html.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;"), "{html}");
        assert!(!html.contains("<script"), "{html}");
    }

    #[test]
    fn a_client_is_told_in_the_form_that_it_wants_most() {
        let wants = |accept: &'static str| {
            let accept = (ACCEPT, HeaderValue::from_static(accept));
            Wants::of(&HeaderMap::from_iter((!accept.1.is_empty()).then_some(accept)))
        };
        for html in [
            "",
            "*/*",
            "text/html,application/xml;q=0.9,*/*;q=0.8",
            "text/*",
            "image/png",
            "text/html, application/json",
        ] {
            assert_eq!(wants(html), Wants::Html, "{html}");
        }
        for json in [
            "application/json",
            "application/json, text/plain, */*",
            "application/vnd.heroku+json; version=3",
            "text/html;q=0.5,application/json",
        ] {
            assert_eq!(wants(json), Wants::Json, "{json}");
        }
        assert_eq!([wants("text/plain"), wants("text/plain;q=0.9, application/json;q=0.5")], [Wants::Text; 2]);
        let page = failure(Failure::NoWeb, "shop", "0123", Wants::Json);
        assert_eq!(page.headers()[CONTENT_TYPE], "application/json");
        let json: serde_json::Value = serde_json::from_slice(page.body()).expect("JSON");
        assert_eq!(json["id"], "H14");
    }

    #[test]
    fn a_page_says_what_happened_and_what_to_do() {
        let page = failure(Failure::NoWeb, "shop", "0123", Wants::Html);
        assert_eq!(page.status(), StatusCode::SERVICE_UNAVAILABLE);
        let html = String::from_utf8(page.body().to_vec()).expect("UTF-8");
        for part in ["no web process", "platform ps:scale --app shop", "H14 · request 0123"] {
            assert!(html.contains(part), "{part}: {html}");
        }
    }
}
