//! The brand's own AI or agent system, which answers what people write on WhatsApp.
//!
//! * kind `webhook`: our JSON, signed by the Standard Webhooks headers, with a bearer token besides if one is
//!   set. Answered at once, or with 202 and later through `/whatsapp/reply`.
//! * kind `openai`: `/chat/completions` as OpenAI defined it, with the API key if one is set.
//!
//! Neither bodies nor URLs nor keys get into an error.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::route::ExternalSystem;
use crate::braze::rate_limit;
use shared::clock::Clock;
use shared::secrets::{RelaySecret, Secret};
use shared::webhook::standard;
use shared::whatsapp::answer::{AnswerError, Answered, fault, parse_answer};
use shared::whatsapp::request::ExternalRequest;

/// Answers that are longer are not read to their end. 64,000 bytes of text fit, however they are escaped.
const MAX_ANSWER_BODY: usize = 1024 * 1024;

/// The external system, whichever URL a route gives it.
#[derive(Clone, Debug)]
pub(crate) struct ExternalSystemClient {
    http: reqwest::Client,
    secret: Secret<RelaySecret>,
    clock: Clock,
}

/// Why there is no answer, sorted by what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExternalSystemError {
    /// Ask again, after `wait` if it said so. It may have got the messages.
    #[error("{reason}")]
    Transient {
        /// Short code for the log and the item.
        reason: String,
        /// Its `Retry-After`.
        wait: Option<Duration>,
    },
    /// URL, credential or permission is wrong, or our secret is not filled in. Somebody must act.
    #[error("{reason}")]
    Configuration {
        /// Short code for the log and the item.
        reason: String,
    },
    /// It refuses these messages. Asking again will not help.
    #[error("{reason}")]
    Rejected {
        /// Short code for the log and the item.
        reason: String,
    },
    /// It answered, but not as agreed. Models do so now and then, so it is asked again.
    #[error("external_system_answer: {0}")]
    Malformed(AnswerError),
}

impl ExternalSystemError {
    /// Ask again; it did not say when.
    pub(super) fn transient(reason: &str) -> Self {
        Self::Transient {
            reason: reason.to_owned(),
            wait: None,
        }
    }

    /// Somebody must act, as `error` says.
    fn misconfigured(error: &impl ToString) -> Self {
        Self::Configuration {
            reason: error.to_string(),
        }
    }

    /// Whether it may be the messages that it stumbles over. It had none of them if nobody was there, or nobody was called.
    pub(super) fn is_about_the_messages(&self) -> bool {
        match self {
            Self::Transient { reason, .. } => reason != UNREACHABLE,
            Self::Malformed(_) | Self::Rejected { .. } => true,
            Self::Configuration { .. } => false,
        }
    }

    /// Whether the system may have got the messages and may still answer through `/whatsapp/reply`.
    pub(super) fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Transient { reason, .. } if MAY_HAVE_ARRIVED.contains(&reason.as_str()))
    }
}

const UNREACHABLE: &str = "external_system_unreachable";
const TIMEOUT: &str = "external_system_timeout";
const CONNECTION_LOST: &str = "external_system_connection_lost";

/// The numbers are what a gateway answers that has lost patience with the system behind it.
const MAY_HAVE_ARRIVED: [&str; 6] = [
    TIMEOUT,
    CONNECTION_LOST,
    "external_system_408",
    "external_system_502",
    "external_system_504",
    "external_system_524",
];

/// What an external system answered, whatever its status.
pub(crate) struct Received {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// A request, ready to be sent with whatever the secret holds.
struct Prepared<'a> {
    url: String,
    body: Vec<u8>,
    /// The `webhook-id` of kind `webhook`.
    webhook_id: Option<&'a str>,
    /// The route whose credentials go along.
    route: Option<&'a str>,
}

impl ExternalSystemClient {
    /// `timeout` is how long an answer may take.
    #[must_use]
    pub(crate) fn new(secret: Secret<RelaySecret>, timeout: Duration, clock: Clock) -> Self {
        Self {
            http: shared::clients::http::client(timeout),
            secret,
            clock,
        }
    }

    /// Asks an external system of kind `webhook`. `webhook_id` is the same whenever the same messages
    /// are handed over, so that the receiver can tell a repetition.
    ///
    /// # Errors
    ///
    /// [`ExternalSystemError`]
    pub(super) async fn hand_over(
        &self,
        system: ExternalSystem<'_>,
        webhook_id: &str,
        request: &ExternalRequest<'_>,
    ) -> Result<Answered, ExternalSystemError> {
        let prepared = Prepared {
            url: system.url.to_owned(),
            body: bytes(request)?,
            webhook_id: Some(webhook_id),
            route: system.route,
        };
        let received = self.post(&prepared).await?;
        let status = received.status;
        if !status.is_success() {
            let wait = rate_limit::wait(status, &received.headers, self.clock.now());
            return Err(failed(status, wait));
        }
        parse_answer(status.as_u16(), &received.body).map_err(ExternalSystemError::Malformed)
    }

    /// Asks an external system of kind `openai`.
    ///
    /// # Errors
    ///
    /// [`ExternalSystemError`] if there is no answer at all.
    pub(super) async fn complete(
        &self,
        system: ExternalSystem<'_>,
        request: &impl Serialize,
    ) -> Result<Received, ExternalSystemError> {
        let prepared = Prepared {
            url: completions(system.url),
            body: bytes(request)?,
            webhook_id: None,
            route: system.route,
        };
        self.post(&prepared).await
    }

    async fn post(&self, prepared: &Prepared<'_>) -> Result<Received, ExternalSystemError> {
        let secret = self.secret.get().await;
        let secret = secret.map_err(|error| ExternalSystemError::misconfigured(&error))?;
        let answer = self.attempt(prepared, &secret).await;
        let is_refused = match &answer {
            Ok(received) => matches!(received.status.as_u16(), 401..=405),
            Err(error) => matches!(error, ExternalSystemError::Configuration { .. }),
        };
        // A credential may have been rotated; an expected side effect of that must not raise an alarm.
        if is_refused
            && let Ok(Some(fresh)) = self.secret.newer(&secret).await
            && credentials(&fresh, prepared.route) != credentials(&secret, prepared.route)
        {
            return self.attempt(prepared, &fresh).await;
        }
        answer
    }

    async fn attempt(
        &self,
        prepared: &Prepared<'_>,
        secret: &RelaySecret,
    ) -> Result<Received, ExternalSystemError> {
        let credentials = secret.credentials(prepared.route);
        let mut request = self
            .http
            .post(&prepared.url)
            .header("content-type", "application/json")
            .header("accept", "application/json");
        let bearer = if let Some(id) = prepared.webhook_id {
            let now = self.clock.now();
            let headers = standard::sign(credentials.signing_secret, id, now, &prepared.body);
            let headers = headers.map_err(|error| ExternalSystemError::misconfigured(&error))?;
            for (name, value) in headers {
                request = request.header(name, value);
            }
            credentials.external_system_token
        } else {
            // Azure takes its keys by a header of its own, and everybody else passes over it.
            if let Some(key) = filled(credentials.openai_api_key).filter(|_| is_azure(&prepared.url)) {
                request = request.header("api-key", key);
            }
            credentials.openai_api_key
        };
        if let Some(token) = filled(bearer) {
            request = request.bearer_auth(token);
        }
        let answer = request.body(prepared.body.clone()).send().await;
        let answer = answer.map_err(|error| network(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok(Received {
            body: match read(answer).await {
                Ok(body) => body,
                // What a refusal says is not needed.
                Err(_) if !status.is_success() => Vec::new(),
                Err(error) => return Err(error),
            },
            status,
            headers,
        })
    }
}

fn bytes(body: &impl Serialize) -> Result<Vec<u8>, ExternalSystemError> {
    serde_json::to_vec(body).map_err(|_| ExternalSystemError::Rejected {
        reason: "messages_not_json".to_owned(),
    })
}

/// The address of the completions under a base: the path is appended, a query stays behind it.
fn completions(base: &str) -> String {
    const PATH: &str = "/chat/completions";
    let (path, query) = base
        .split_once('?')
        .map_or((base, None), |(path, query)| (path, Some(query)));
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix(PATH).unwrap_or(path);
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    format!("{path}{PATH}{query}")
}

fn is_azure(url: &str) -> bool {
    let host = url.split('/').nth(2).unwrap_or_default();
    host.ends_with(".azure.com") || host.ends_with(".azure.us")
}

/// What a status means that is no success.
pub(super) fn failed(status: StatusCode, wait: Option<Duration>) -> ExternalSystemError {
    let reason = format!("external_system_{}", status.as_u16());
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            ExternalSystemError::Transient { reason, wait }
        }
        status if status.is_server_error() => ExternalSystemError::Transient { reason, wait },
        StatusCode::UNAUTHORIZED
        | StatusCode::PAYMENT_REQUIRED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::GONE => ExternalSystemError::Configuration { reason },
        // A redirect is not followed: the credentials would go along.
        status if status.is_redirection() => ExternalSystemError::Configuration { reason },
        _ => ExternalSystemError::Rejected { reason },
    }
}

async fn read(answer: reqwest::Response) -> Result<Vec<u8>, ExternalSystemError> {
    let body = shared::clients::http::body(answer, MAX_ANSWER_BODY).await;
    body.map_err(|error| network(&error))?
        .ok_or_else(|| ExternalSystemError::Malformed(fault("body", "must not be larger than 1 MiB")))
}

fn filled(token: Option<&SecretString>) -> Option<&str> {
    token
        .map(|token| token.expose_secret().trim())
        .filter(|token| !token.is_empty())
}

fn credentials<'a>(secret: &'a RelaySecret, route: Option<&str>) -> [Option<&'a str>; 3] {
    let credentials = secret.credentials(route);
    [
        Some(credentials.signing_secret.expose_secret()),
        filled(credentials.external_system_token),
        filled(credentials.openai_api_key),
    ]
}

fn network(error: &reqwest::Error) -> ExternalSystemError {
    // The error's own text holds the URL; its kind says enough.
    ExternalSystemError::transient(if error.is_timeout() {
        TIMEOUT
    } else if error.is_connect() {
        UNREACHABLE
    } else {
        CONNECTION_LOST
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_comes_before_a_query() {
        for (base, expected) in [
            ("https://a/v1", "https://a/v1/chat/completions"),
            ("https://a/v1/", "https://a/v1/chat/completions"),
            ("https://a/v1/chat/completions", "https://a/v1/chat/completions"),
            (
                "https://r.openai.azure.com/openai/deployments/d?api-version=2024-10-21",
                "https://r.openai.azure.com/openai/deployments/d/chat/completions?api-version=2024-10-21",
            ),
            ("https://a/v1/?x=/y/", "https://a/v1/chat/completions?x=/y/"),
        ] {
            assert_eq!(completions(base), expected);
        }
        assert!(is_azure("https://r.openai.azure.com/openai/v1/chat/completions"));
        assert!(!is_azure("https://azure.com.example/v1") && !is_azure("https://a/.azure.com"));
    }
}
