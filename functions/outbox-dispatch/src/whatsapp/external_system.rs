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

use crate::braze::rate_limit;
use crate::whatsapp::openai::{ChatRequest, parse_completion};
use shared::clock::Clock;
use shared::secrets::{RelaySecret, Secret};
use shared::webhook::standard;
use shared::whatsapp::answer::{AnswerError, ExternalRequest, Outcome, outcome};

/// Answers that are longer are not read to their end. 64,000 bytes of text fit, however they are escaped.
const MAX_ANSWER_BODY: usize = 1024 * 1024;

/// The external system, whichever URL a route gives it.
#[derive(Clone, Debug)]
pub(super) struct ExternalSystemClient {
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

/// A request, ready to be sent with whatever the secret holds.
struct Prepared<'a> {
    url: String,
    body: Vec<u8>,
    /// The `webhook-id` of kind `webhook`.
    webhook_id: Option<&'a str>,
}

impl ExternalSystemClient {
    /// `timeout` is how long an answer may take.
    #[must_use]
    pub(super) fn new(secret: Secret<RelaySecret>, timeout: Duration, clock: Clock) -> Self {
        Self {
            http: shared::clients::http::client(timeout),
            secret,
            clock,
        }
    }

    /// Asks an external system of kind `webhook` at `url`. `webhook_id` is the same whenever the same messages
    /// are handed over, so that the receiver can tell a repetition.
    ///
    /// # Errors
    ///
    /// [`ExternalSystemError`]
    pub(super) async fn hand_over(
        &self,
        url: &str,
        webhook_id: &str,
        request: &ExternalRequest<'_>,
    ) -> Result<Outcome, ExternalSystemError> {
        let (status, body) = self.post(url.to_owned(), Some(webhook_id), request).await?;
        outcome(status.as_u16(), &body).map_err(ExternalSystemError::Malformed)
    }

    /// Asks an external system of kind `openai` whose base is `url`.
    ///
    /// # Errors
    ///
    /// [`ExternalSystemError`]
    pub(super) async fn complete(
        &self,
        url: &str,
        request: &ChatRequest<'_>,
    ) -> Result<Outcome, ExternalSystemError> {
        let url = format!("{}/chat/completions", url.trim_end_matches('/'));
        let (_, body) = self.post(url, None, request).await?;
        let answer = parse_completion(&body).map_err(ExternalSystemError::Malformed)?;
        Ok(Outcome::Now(answer))
    }

    async fn post(
        &self,
        url: String,
        webhook_id: Option<&str>,
        body: &impl Serialize,
    ) -> Result<(StatusCode, Vec<u8>), ExternalSystemError> {
        let body = serde_json::to_vec(body).map_err(|_| ExternalSystemError::Rejected {
            reason: "messages_not_json".to_owned(),
        })?;
        let prepared = Prepared {
            url,
            body,
            webhook_id,
        };
        let secret = self.secret.get().await.map_err(|error| unreadable(&error))?;
        let answer = self.attempt(&prepared, &secret).await;
        // A credential may have been rotated; an expected side effect of that must not raise an alarm.
        if let Err(ExternalSystemError::Configuration { .. }) = answer
            && let Ok(Some(fresh)) = self.secret.newer(&secret).await
            && credentials(&fresh) != credentials(&secret)
        {
            return self.attempt(&prepared, &fresh).await;
        }
        answer
    }

    async fn attempt(
        &self,
        prepared: &Prepared<'_>,
        secret: &RelaySecret,
    ) -> Result<(StatusCode, Vec<u8>), ExternalSystemError> {
        let mut request = self
            .http
            .post(&prepared.url)
            .header("content-type", "application/json")
            .header("accept", "application/json");
        let bearer = if let Some(id) = prepared.webhook_id {
            let headers = standard::sign(&secret.signing_secret, id, self.clock.now(), &prepared.body);
            let headers = headers.map_err(|error| ExternalSystemError::Configuration {
                reason: error.to_string(),
            })?;
            for (name, value) in headers {
                request = request.header(name, value);
            }
            &secret.external_system_token
        } else {
            &secret.openai_api_key
        };
        if let Some(token) = filled(bearer.as_ref()) {
            request = request.bearer_auth(token);
        }
        let answer = request
            .body(prepared.body.clone())
            .send()
            .await
            .map_err(|error| network(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if !status.is_success() {
            return Err(self.refused(status, &headers));
        }
        Ok((status, read(answer).await?))
    }

    fn refused(&self, status: StatusCode, headers: &HeaderMap) -> ExternalSystemError {
        let reason = format!("external_system_{}", status.as_u16());
        match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                let wait = rate_limit::wait(status, headers, self.clock.now());
                ExternalSystemError::Transient { reason, wait }
            }
            status if status.is_server_error() => {
                let wait = rate_limit::wait(status, headers, self.clock.now());
                ExternalSystemError::Transient { reason, wait }
            }
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
}

async fn read(mut answer: reqwest::Response) -> Result<Vec<u8>, ExternalSystemError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| network(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER_BODY {
            return Err(ExternalSystemError::Malformed(AnswerError {
                field: "body".to_owned(),
                problem: "must not be larger than 1 MiB",
            }));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unreadable(error: &shared::secrets::SecretError) -> ExternalSystemError {
    ExternalSystemError::Configuration {
        reason: error.to_string(),
    }
}

fn filled(token: Option<&SecretString>) -> Option<&str> {
    token
        .map(|token| token.expose_secret().trim())
        .filter(|token| !token.is_empty())
}

fn credentials(secret: &RelaySecret) -> [Option<&str>; 3] {
    [
        Some(secret.signing_secret.expose_secret()),
        filled(secret.external_system_token.as_ref()),
        filled(secret.openai_api_key.as_ref()),
    ]
}

fn network(error: &reqwest::Error) -> ExternalSystemError {
    // The error's own text holds the URL; its kind says enough.
    let reason = if error.is_timeout() {
        "external_system_timeout"
    } else if error.is_connect() {
        "external_system_unreachable"
    } else {
        "external_system_connection_lost"
    };
    ExternalSystemError::Transient {
        reason: reason.to_owned(),
        wait: None,
    }
}
