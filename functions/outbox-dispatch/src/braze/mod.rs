//! Braze's REST API, as far as we use it.
//!
//! * [`Braze`]: one request, one answer, one [`BrazeError`] that says what to do about it.
//! * [`bulk`]: many users' objects or aliases in as few requests as Braze's limits allow, with each one's fate.
//! * [`delete`]: many profiles deleted, in the same way.
//! * [`refusals`]: whether a refusal is about the content or about the caller.
//!
//! The status codes are read as Braze's API error page describes them
//! (<https://www.braze.com/docs/api/errors>): a success means "queued", not "applied".

pub mod bulk;
pub mod delete;
mod gate;
mod objects;
pub(crate) mod rate_limit;
mod refusal;
mod refusals;
mod taken;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;

pub use self::objects::{Fate, Objects};
use self::refusal::OBJECT_REJECTED;
pub use self::refusal::{Array, ObjectError};
use self::refusals::{Permit, Refusals};
pub use self::taken::Taken;
use shared::clock::Clock;
use shared::outbox::Reason;
use shared::secrets::{BrazeSecret, Secret};

use crate::settle::Outcome;

/// At most this many objects over the three arrays of `/users/track`. Older contracts count each array alone;
/// 75 in all is right for both. (<https://www.braze.com/docs/api/api_limits>)
pub const MAX_TRACK_OBJECTS: usize = 75;

/// At most this many users in `/users/identify`.
pub const MAX_IDENTIFY: usize = 50;

/// An answer names at most 75 objects.
const MAX_ANSWER_BODY: usize = 1024 * 1024;

/// Braze's integration partners use 30 s and more; longer, and a batch would outlive its invocation.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Braze's REST API under one endpoint.
#[derive(Clone, Debug)]
pub struct Braze {
    http: reqwest::Client,
    endpoint: String,
    secret: Secret<BrazeSecret>,
    clock: Clock,
    track_refusals: Arc<Refusals>,
    identify_refusals: Arc<Refusals>,
}

/// Why a request did not succeed, sorted by what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrazeError {
    /// Try again, after `wait` if Braze said so. The outcome may be unknown: the request may have been taken.
    #[error("{reason}")]
    Transient {
        /// Short code for the log and the item.
        reason: String,
        /// What Braze's headers ask for.
        wait: Option<Duration>,
    },
    /// Key, permission, instance or URL is wrong (401, 403, 404, a redirect), the key cannot be read, or everything is
    /// refused alike. An operator has to act; until then the item waits.
    #[error("{reason}")]
    Configuration {
        /// Short code for the log and the item.
        reason: String,
        /// What Braze's headers ask for.
        wait: Option<Duration>,
    },
    /// Braze refuses the content (400 and its like). Trying again will not help.
    #[error("{reason}")]
    Rejected {
        /// Short code for the log and the item; Braze's own text if it is one of the known ones.
        reason: String,
        /// Objects at fault, where Braze named them.
        errors: Vec<ObjectError>,
    },
    /// The body is too large (413). In smaller pieces it may pass.
    #[error("braze_413")]
    TooLarge,
    /// No request was begun: there was no time left for one.
    #[error("out_of_time")]
    OutOfTime,
}

/// An endpoint that takes many objects at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Track,
    Identify,
}

impl Endpoint {
    fn path(self) -> &'static str {
        match self {
            Self::Track => "/users/track",
            Self::Identify => "/users/identify",
        }
    }

    /// In one request.
    fn most_objects(self) -> usize {
        match self {
            Self::Track => MAX_TRACK_OBJECTS,
            Self::Identify => MAX_IDENTIFY,
        }
    }

    /// Requests under way at once. Limits are counted per company, and that of identify is shared with other
    /// endpoints.
    fn concurrency(self) -> usize {
        match self {
            Self::Track => 8,
            Self::Identify => 4,
        }
    }

    /// What an object's refusal is called.
    fn rejected(self) -> &'static str {
        match self {
            Self::Track => OBJECT_REJECTED,
            Self::Identify => "braze_identify_rejected",
        }
    }

    /// The body of a request with many objects.
    fn body<'a>(self, objects: &[(Array, &'a Value)]) -> BTreeMap<&'static str, Vec<&'a Value>> {
        let mut body: BTreeMap<_, Vec<&Value>> = BTreeMap::new();
        for (array, object) in objects {
            let name = match (self, array) {
                (Self::Identify, _) => "aliases_to_identify",
                (Self::Track, Array::Attributes) => "attributes",
                (Self::Track, Array::Events) => "events",
            };
            body.entry(name).or_default().push(*object);
        }
        body
    }
}

impl Braze {
    /// `endpoint` is the REST endpoint without a trailing slash, as the dashboard shows it.
    #[must_use]
    pub fn new(endpoint: String, secret: Secret<BrazeSecret>, clock: Clock) -> Self {
        Self {
            http: shared::clients::http::client(TIMEOUT),
            endpoint,
            secret,
            clock,
            track_refusals: Arc::default(),
            identify_refusals: Arc::default(),
        }
    }

    /// `POST /users/track` with objects of one profile. [`bulk::track`] is for many.
    pub async fn track(&self, objects: &Objects) -> Result<Taken, BrazeError> {
        let refusals = self.refusals(Endpoint::Track);
        let (Permit::Any | Permit::Probe(_)) = refusals.permit(self.now())?;
        let all: Vec<(Array, &Value)> = objects.iter().collect();
        let mut objects = all.iter().map(|(_, object)| *object);
        match self.ask(Endpoint::Track, &all).await {
            Ok(taken) => {
                refusals.took(objects);
                Ok(taken)
            }
            Err(refusal) if refusal.is_unnamed() => {
                let object = objects.next().unwrap_or(&Value::Null);
                Err(refusals.refused_alone(object, None, refusal, self.now()))
            }
            Err(error) => {
                refusals.failed(&error, self.now());
                Err(error)
            }
        }
    }

    /// One request of several: what it means if it is refused, [`bulk`] finds out. Success of identify does not say
    /// that an alias was found.
    async fn ask(&self, endpoint: Endpoint, objects: &[(Array, &Value)]) -> Result<Taken, BrazeError> {
        let body = endpoint.body(objects);
        self.post(endpoint.path(), |secret| &secret.api_key, &body).await
    }

    fn refusals(&self, endpoint: Endpoint) -> &Refusals {
        match endpoint {
            Endpoint::Track => &self.track_refusals,
            Endpoint::Identify => &self.identify_refusals,
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// `POST /campaigns/trigger/send`. Not idempotent: after an unknown outcome, trying again may send twice.
    pub async fn trigger_send(&self, body: &Value) -> Result<Taken, BrazeError> {
        self.post("/campaigns/trigger/send", BrazeSecret::trigger_api_key, body)
            .await
    }

    /// `POST /canvas/trigger/send`. No more idempotent than [`Braze::trigger_send`].
    pub async fn canvas_send(&self, body: &Value) -> Result<Taken, BrazeError> {
        self.post("/canvas/trigger/send", BrazeSecret::trigger_api_key, body)
            .await
    }

    async fn post(
        &self,
        path: &str,
        key: fn(&BrazeSecret) -> &SecretString,
        body: &impl Serialize,
    ) -> Result<Taken, BrazeError> {
        let unreadable = |error: shared::secrets::SecretError| {
            tracing::error!(%error, "requests to Braze wait for their secret");
            BrazeError::Configuration {
                reason: Reason::SecretsUnavailable.into(),
                wait: None,
            }
        };
        let secret = self.secret.get().await.map_err(unreadable)?;
        let answer = self.attempt(path, key(&secret), body).await;
        // The key may have been rotated; an expected side effect of that must not raise an alarm.
        if let Err(BrazeError::Configuration { .. }) = answer
            && let Ok(Some(fresh)) = self.secret.newer(&secret).await
            && key(&fresh).expose_secret() != key(&secret).expose_secret()
        {
            return self.attempt(path, key(&fresh), body).await;
        }
        answer
    }

    async fn attempt(
        &self,
        path: &str,
        key: &SecretString,
        body: &impl Serialize,
    ) -> Result<Taken, BrazeError> {
        if key.expose_secret().is_empty() {
            return Err(BrazeError::Configuration {
                reason: "the braze secret has no key yet".into(),
                wait: None,
            });
        }
        let url = format!("{}{path}", self.endpoint);
        let request = self.http.post(url).bearer_auth(key.expose_secret()).json(body);
        let answer = request.send().await.map_err(|error| network(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = shared::clients::http::body(answer, MAX_ANSWER_BODY).await;
        // The status says what became of it; what is too large to read names no object.
        let body = body.map_err(|error| network(&error))?.unwrap_or_default();
        self.read(status, &headers, &body)
    }

    fn read(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<Taken, BrazeError> {
        let taken = Taken::read(body);
        let reason = || format!("braze_{}", status.as_u16());
        let wait = || rate_limit::wait(status, headers, self.now());
        match status {
            status if status.is_success() => {
                if taken.message() != "success" {
                    // Seen with other words in the wild; the documented meaning of 2xx is "taken".
                    tracing::warn!(
                        http.status = status.as_u16(),
                        "Braze took a request with an unusual answer"
                    );
                }
                Ok(taken)
            }
            _ if status.is_server_error()
                || matches!(
                    status,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY
                ) =>
            {
                Err(BrazeError::Transient {
                    reason: reason(),
                    wait: wait(),
                })
            }
            // Seen with 400 and with 401: objects are named, so it is about the content and not the key.
            _ if status.is_client_error() && taken.errors.iter().any(|error| error.index.is_some()) => {
                let named = taken.errors.iter().find(|error| error.code.is_some());
                Err(BrazeError::Rejected {
                    reason: named.map_or_else(reason, |error| error.reason(&reason())),
                    errors: taken.errors,
                })
            }
            // Nothing of the REST API redirects: it is another host.
            _ if status.is_redirection()
                || matches!(
                    status,
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
                ) =>
            {
                Err(BrazeError::Configuration {
                    reason: reason(),
                    wait: wait(),
                })
            }
            _ => match wait() {
                // Not now is not never.
                wait @ Some(_) => Err(BrazeError::Transient {
                    reason: reason(),
                    wait,
                }),
                None if status == StatusCode::PAYLOAD_TOO_LARGE => Err(BrazeError::TooLarge),
                None => Err(BrazeError::Rejected {
                    reason: known_reason(taken.message()).unwrap_or_else(reason),
                    errors: taken.errors,
                }),
            },
        }
    }
}

fn network(error: &reqwest::Error) -> BrazeError {
    // The error's own text holds the URL; its kind says enough.
    let reason = if error.is_timeout() {
        TIMED_OUT
    } else if error.is_connect() {
        UNREACHABLE
    } else {
        "braze_connection_lost"
    };
    BrazeError::Transient {
        reason: reason.to_owned(),
        wait: None,
    }
}

// Braze's answers to bad requests may quote the request, so only texts without data are passed on.
fn known_reason(message: &str) -> Option<String> {
    const KNOWN: [&str; 10] = [
        "No Recipients",
        "Invalid Campaign ID",
        "Message Variant Unspecified",
        "Invalid Message Variant",
        "Mismatched Message Type",
        "Max Input Length Exceeded",
        "The max number of external_ids and aliases per request was exceeded",
        "The max number of ids per request was exceeded",
        "No message to send",
        "canvas_id must be a string of the Canvas api identifier",
    ];
    KNOWN
        .iter()
        .find(|known| message.starts_with(*known))
        .map(|known| format!("braze_400: {known}"))
}

impl BrazeError {
    /// Whether other requests would meet the same: Braze throttles, is out of reach, or refuses the key. A 5xx
    /// does not say so; it may be about the one request.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Configuration { .. } | Self::Transient { wait: Some(_), .. } => true,
            Self::Transient { reason, wait: None } => {
                matches!(reason.as_str(), TIMED_OUT | UNREACHABLE | THROTTLED)
            }
            Self::Rejected { .. } | Self::TooLarge | Self::OutOfTime => false,
        }
    }

    /// Whether trying again cannot help.
    fn is_final(&self) -> bool {
        matches!(self, Self::Rejected { .. } | Self::TooLarge)
    }

    /// Whether it is a refusal that may be about anything: no object is named, and Braze's words for a bad object are
    /// not there. (`Max Input Length Exceeded` is about the request.)
    fn is_unnamed(&self) -> bool {
        match self {
            Self::TooLarge => true,
            Self::Rejected { reason, errors } => {
                let is_named = errors.iter().any(|error| error.index.is_some());
                !is_named && (!reason.contains(": ") || reason.contains("Max Input Length"))
            }
            _ => false,
        }
    }

    /// Whether it is certain that Braze has done nothing of what was asked. Of a lost connection or a 5xx it is not,
    /// and a refusal may be about a part.
    #[must_use]
    pub fn is_without_effect(&self) -> bool {
        match self {
            Self::Configuration { .. } | Self::OutOfTime => true,
            Self::Transient { reason, .. } => matches!(reason.as_str(), UNREACHABLE | THROTTLED),
            Self::Rejected { .. } | Self::TooLarge => false,
        }
    }
}

const TIMED_OUT: &str = "braze_timeout";
const UNREACHABLE: &str = "braze_unreachable";
const THROTTLED: &str = "braze_429";

/// What a failed call means for the items it was about.
impl From<&BrazeError> for Outcome {
    fn from(error: &BrazeError) -> Self {
        match error {
            BrazeError::Transient { reason, wait } => Self::Retry {
                reason: reason.clone(),
                wait: *wait,
            },
            BrazeError::Configuration { reason, wait } => Self::Misconfigured {
                reason: reason.clone(),
                wait: *wait,
            },
            BrazeError::Rejected { .. } | BrazeError::TooLarge => Self::dead(error.to_string()),
            BrazeError::OutOfTime => Self::Busy,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::messenger::sync::{Identify, UserAlias};

    use super::*;

    #[test]
    fn nothing_shows_a_person_or_a_key() {
        let objects = Objects {
            attributes: vec![json!({"external_id": "user-7"})].into(),
            ..Objects::default()
        };
        let alias = Identify {
            external_id: "user-7".to_owned().into(),
            user_alias: UserAlias {
                alias_name: "7001".to_owned().into(),
                alias_label: "messenger:1".to_owned(),
            },
        };
        let answer = json!({"message": "Invalid API key: user-7", "errors": [{"type": "'user-7' is wrong"}]});
        let taken = Taken::read(answer.to_string().as_bytes());
        let shown = format!("{objects:?} {alias:?} {taken:?}");
        assert!(!shown.contains("user-7") && !shown.contains("7001"), "{shown}");
    }
}
