//! The files that pages refer to, compiled in. Their addresses change with their content, so that browsers keep them for ever.

use std::io::Write;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use sha2::{Digest, Sha256};

struct Asset {
    /// `console-1a2b3c4d.css`
    name: String,
    kind: &'static str,
    plain: &'static [u8],
    zipped: Vec<u8>,
}

/// The addresses that templates need.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Addresses {
    style: String,
    script: String,
    htmx: String,
    icon: String,
}

impl Asset {
    fn new(stem: &str, extension: &str, kind: &'static str, plain: &'static [u8]) -> Self {
        let digest = hex::encode(Sha256::digest(plain));
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Into memory, which does not fail; an empty body means "send it plain".
        let zipped = encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap_or_default();
        Self { name: format!("{stem}-{}.{extension}", &digest[..12]), kind, plain, zipped }
    }

    fn address(&self) -> String {
        format!("/console/static/{}", self.name)
    }
}

static ASSETS: LazyLock<[Asset; 4]> = LazyLock::new(|| {
    [
        Asset::new("console", "css", "text/css; charset=utf-8", include_bytes!("../static/console.css")),
        Asset::new("console", "js", "text/javascript; charset=utf-8", include_bytes!("../static/console.js")),
        Asset::new("htmx", "js", "text/javascript; charset=utf-8", include_bytes!("../static/htmx.min.js")),
        Asset::new("icon", "svg", "image/svg+xml", include_bytes!("../static/icon.svg")),
    ]
});

/// The addresses of this version.
pub(crate) fn addresses() -> Addresses {
    let [style, script, htmx, icon] = &*ASSETS;
    Addresses { style: style.address(), script: script.address(), htmx: htmx.address(), icon: icon.address() }
}

/// `GET /console/static/{name}`, for everybody.
pub(crate) async fn serve(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let common =
        [(CONTENT_TYPE, asset.kind), (CACHE_CONTROL, "public, max-age=31536000, immutable"), (VARY, "accept-encoding")];
    if accepted.contains("gzip") && !asset.zipped.is_empty() {
        return (common, [(CONTENT_ENCODING, "gzip")], asset.zipped.as_slice()).into_response();
    }
    (common, asset.plain).into_response()
}
