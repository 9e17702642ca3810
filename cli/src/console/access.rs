//! Who may use the console: whoever has the address that was printed, from a page of the console itself.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

/// The file of a data directory that holds the token.
const FILE: &str = "console-token";

/// Nothing but what the console itself serves is loaded, run, sent to or framed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What opens the console.
pub(crate) struct Access {
    token: String,
    /// Cookies know no ports: each console has a name of its own.
    cookie: String,
    /// What a browser may call this place.
    hosts: [String; 3],
}

/// 244 random bits.
pub(crate) fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// The token of a data directory, made if it is not there; without a directory, another each time.
pub(crate) fn token(data_dir: Option<&Path>) -> anyhow::Result<String> {
    let Some(directory) = data_dir else {
        return Ok(random());
    };
    let file = directory.join(FILE);
    if let Ok(token) = std::fs::read_to_string(&file)
        && token.trim().len() >= 32
    {
        return Ok(token.trim().to_owned());
    }
    let token = random();
    let write = || {
        std::fs::create_dir_all(directory)?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&file)?.write_all(token.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", file.display()))?;
    Ok(token)
}

impl Access {
    /// For a console on this port of the loopback interface.
    pub(crate) fn new(token: String, port: u16) -> Arc<Self> {
        Arc::new(Self {
            token,
            cookie: format!("bridge-console-{port}"),
            hosts: ["127.0.0.1", "localhost", "[::1]"].map(|host| format!("{host}:{port}")),
        })
    }

    fn is_token(&self, given: &str) -> bool {
        bool::from(given.as_bytes().ct_eq(self.token.as_bytes()))
    }

    /// Whether the request names this machine: a page of another host that resolves to it does not.
    fn is_here(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        host.is_some_and(|host| self.hosts.iter().any(|known| known == host))
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE).into_iter();
        let pairs = cookies
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'));
        let mut given = pairs.filter_map(|pair| pair.trim().split_once('='));
        given.any(|(name, value)| name == self.cookie && self.is_token(value))
    }
}

/// Whether a page of the console sent it. Every browser says so of a form and of a script's request.
fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text("origin").and_then(|origin| origin.strip_prefix("http://"));
    origin.is_some() && origin == text("host")
}

/// Lets in who may: with the token of the address, which becomes a cookie, or with the cookie.
pub(crate) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    if !access.is_here(request.headers()) {
        return refusal(
            StatusCode::MISDIRECTED_REQUEST,
            "The console answers on 127.0.0.1 alone.",
        );
    }
    let query = request.uri().query().unwrap_or_default();
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token="));
    if request.method() == Method::GET && token.is_some_and(|token| access.is_token(token)) {
        // Out of the address, and so out of the history, at once.
        let cookie = format!(
            "{}={}; Path=/console; HttpOnly; SameSite=Strict",
            access.cookie, access.token
        );
        let path = request.uri().path().to_owned();
        let answer = (
            StatusCode::SEE_OTHER,
            [(header::SET_COOKIE, cookie), (header::LOCATION, path)],
        );
        return secured(answer.into_response());
    }
    if !access.has_cookie(request.headers()) {
        return refusal(
            StatusCode::UNAUTHORIZED,
            "Open the console by the address that bridge prints: it holds a token.",
        );
    }
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_safe && !is_own(request.headers()) {
        return refusal(
            StatusCode::FORBIDDEN,
            "Only a page of the console may ask for that.",
        );
    }
    secured(next.run(request).await)
}

fn refusal(status: StatusCode, text: &str) -> Response {
    secured((status, format!("{text}\n")).into_response())
}

fn secured(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // With `no-referrer` a browser would not say which page posts a form.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    answer
}
