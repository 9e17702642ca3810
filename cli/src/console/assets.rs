//! Style, script, and htmx. See `assets/README.md` for its version and licence.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use shared::digest::Digest;

const FILES: [(&str, &str, &[u8]); 4] = [
    (
        "console.css",
        "text/css; charset=utf-8",
        include_bytes!("assets/console.css"),
    ),
    ("console.js", JAVASCRIPT, include_bytes!("assets/console.js")),
    ("htmx.min.js", JAVASCRIPT, include_bytes!("assets/htmx.min.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("assets/icon.svg")),
];
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Stands in their addresses, so that a browser may keep them until they change.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all: Vec<&[u8]> = FILES.iter().map(|(_, _, bytes)| *bytes).collect();
    let digest = Digest::of(all.concat()).to_string();
    digest.chars().take(12).collect()
});

/// The address of a file.
pub(crate) fn address(name: &str) -> String {
    format!("/console/assets/{}/{name}", VERSION.as_str())
}

/// A file.
pub(crate) async fn get(Path((_, name)): Path<(String, String)>) -> Response {
    let file = FILES.into_iter().find(|(known, _, _)| *known == name);
    let Some((_, kind, bytes)) = file else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
    ];
    (headers, bytes).into_response()
}
