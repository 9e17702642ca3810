//! Secrets, read from Secrets Manager at run time and cached in the warm process, so that a rotation needs no
//! redeploy.
//!
//! AWS's own caching crate is not used: it asks for the SDK's default features, which link a second TLS stack
//! into every function, and it cannot limit how often a forced refresh happens.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use jiff::Timestamp;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use crate::clock::Clock;
use crate::{json, sdk_error, telemetry};

/// How long a value is used without asking again.
const TIME_TO_LIVE: Duration = Duration::from_mins(5);

/// A mismatch forces a refresh at most this often: strangers must not make us ask on each of their requests.
const REFRESH_INTERVAL: Duration = Duration::from_mins(1);

/// A value that Secrets Manager no longer gives, since it was overwritten with something unreadable or deleted, serves for
/// this long: it may have been replaced because it had leaked.
const LAST_VALUE_SERVES: Duration = Duration::from_hours(1);

/// After a failure Secrets Manager is left alone for this long: each try may take seconds, and Meta waits for
/// five in all.
const PAUSE: Duration = Duration::from_secs(30);

/// Why a secret cannot be had. Holds the secret's name and never its value.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SecretError {
    /// Secrets Manager did not give it.
    #[error("secret `{id}` cannot be read: {reason}")]
    Unavailable {
        /// Name or ARN as configured.
        id: String,
        /// What Secrets Manager said.
        reason: String,
        /// It said so for good, and not because it is down or busy.
        refused: bool,
    },
    /// It is not JSON with the fields that are expected.
    #[error("secret `{id}` does not hold the expected JSON: {reason}")]
    Malformed {
        /// Name or ARN as configured.
        id: String,
        /// The field at fault, or what kind of JSON error it is.
        reason: String,
    },
}

impl SecretError {
    /// Whether there is no good value now, as far as Secrets Manager knows: somebody has to mend it.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Unavailable { refused, .. } => *refused,
            Self::Malformed { .. } => true,
        }
    }
}

/// A secret of type `T`, fetched when first needed. Clones share the cache.
pub struct Secret<T> {
    id: Arc<str>,
    client: Client,
    clock: Clock,
    cached: Arc<Mutex<Cached<T>>>,
}

struct Cached<T> {
    value: Option<Arc<T>>,
    fetched: Timestamp,
    forced: Timestamp,
    /// The last try, if it failed.
    failed: Option<(Timestamp, SecretError)>,
    /// Whether Secrets Manager has said since that there is no good value any more.
    refused: bool,
}

impl<T> Cached<T> {
    /// Why a try would be too early: another one has failed since `interval` ago.
    fn failure(&self, now: Timestamp, interval: Duration) -> Option<&SecretError> {
        let (at, error) = self.failed.as_ref()?;
        (age(now, *at) < interval).then_some(error)
    }

    /// Keeps what came of a try that began and ended at these times.
    fn keep(&mut self, began: Timestamp, ended: Timestamp, fetched: &Result<Arc<T>, SecretError>) {
        match fetched {
            Ok(value) => {
                self.fetched = began;
                self.value = Some(Arc::clone(value));
                self.failed = None;
                self.refused = false;
            }
            Err(error) => {
                if error.is_refusal() {
                    metrics::counter!(telemetry::SECRETS_UNREADABLE).increment(1);
                    self.refused = true;
                }
                self.failed = Some((ended, error.clone()));
            }
        }
    }

    /// The last known value, after a try that failed.
    fn last(&self, now: Timestamp) -> Option<Arc<T>> {
        let serves = !self.refused || age(now, self.fetched) < LAST_VALUE_SERVES;
        self.value.clone().filter(|_| serves)
    }
}

impl<T> Clone for Secret<T> {
    fn clone(&self) -> Self {
        Self {
            id: Arc::clone(&self.id),
            client: self.client.clone(),
            clock: self.clock.clone(),
            cached: Arc::clone(&self.cached),
        }
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl<T: DeserializeOwned> Secret<T> {
    /// `id` is a name or an ARN. Nothing is fetched yet.
    #[must_use]
    pub fn new(client: Client, id: &str, clock: Clock) -> Self {
        let never = Timestamp::UNIX_EPOCH;
        let cached = Cached {
            value: None,
            fetched: never,
            forced: never,
            failed: None,
            refused: false,
        };
        Self {
            id: id.into(),
            client,
            clock,
            cached: Arc::new(Mutex::new(cached)),
        }
    }

    /// The value, at most five minutes old. If Secrets Manager cannot be reached, the last known value serves; if it
    /// has none that is good any more, for an hour.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if there is no value, or the last one serves no longer.
    pub async fn get(&self) -> Result<Arc<T>, SecretError> {
        let mut cached = self.cached.lock().await;
        let now = self.clock.now();
        if let Some(value) = &cached.value
            && age(now, cached.fetched) < TIME_TO_LIVE
        {
            return Ok(Arc::clone(value));
        }
        if cached.failure(now, PAUSE).is_some()
            && let Some(value) = cached.last(now)
        {
            return Ok(value);
        }
        let fetched = self.fetch().await;
        cached.keep(now, self.clock.now(), &fetched);
        fetched.or_else(|error| match cached.last(now) {
            Some(value) => {
                tracing::warn!(secret.id = %self.id, %error, "the secret cannot be refreshed; its last value serves");
                Ok(value)
            }
            None => Err(error),
        })
    }

    /// The value fetched anew after something did not match it, or `None` if that was done less than a minute
    /// ago: then what we hold is what there is.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if it cannot be fetched, or could not be a moment ago.
    pub async fn refresh(&self) -> Result<Option<Arc<T>>, SecretError> {
        let mut cached = self.cached.lock().await;
        let now = self.clock.now();
        if age(now, cached.forced) < REFRESH_INTERVAL {
            return match cached.failure(now, REFRESH_INTERVAL) {
                Some(error) => Err(error.clone()),
                None => Ok(None),
            };
        }
        if let Some(error) = cached.failure(now, PAUSE) {
            return Err(error.clone());
        }
        cached.forced = now;
        let fetched = self.fetch().await;
        cached.keep(now, self.clock.now(), &fetched);
        fetched.map(Some)
    }

    /// What replaces `refused`: the value fetched anew, or what a request beside this one has just fetched.
    /// `None` if there is nothing newer.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if it cannot be fetched.
    pub async fn newer(&self, refused: &Arc<T>) -> Result<Option<Arc<T>>, SecretError> {
        if let Some(fresh) = self.refresh().await? {
            return Ok(Some(fresh));
        }
        let held = self.get().await?;
        Ok((!Arc::ptr_eq(&held, refused)).then_some(held))
    }

    async fn fetch(&self) -> Result<Arc<T>, SecretError> {
        let id = || self.id.to_string();
        let answer = self
            .client
            .get_secret_value()
            .secret_id(&*self.id)
            .send()
            .await
            .map_err(|error| SecretError::Unavailable {
                id: id(),
                reason: sdk_error::reason(&error),
                refused: sdk_error::is_refusal(&error),
            })?;
        let text = answer.secret_string().unwrap_or_default();
        json::read(text.as_bytes())
            .map(Arc::new)
            .map_err(|error| SecretError::Malformed {
                id: id(),
                reason: error.to_string(),
            })
    }
}

fn age(now: Timestamp, then: Timestamp) -> Duration {
    now.duration_since(then).try_into().unwrap_or_default()
}

/// `<stack>/meta`
#[derive(Debug, Deserialize)]
pub struct MetaSecret {
    /// The Meta app.
    #[serde(deserialize_with = "id")]
    pub app_id: String,
    /// Signs webhooks and `appsecret_proof`.
    pub app_secret: SecretString,
    /// Still accepted after a rotation.
    pub previous_app_secret: Option<SecretString>,
    /// What we told Meta to send in `hub.verify_token`.
    pub verify_token: SecretString,
    /// The same for `/fbe/webhook`, if it differs.
    pub fbe_verify_token: Option<SecretString>,
    /// FBE's app, if it is another one.
    #[serde(default, deserialize_with = "app")]
    pub fbe: Option<MetaApp>,
    /// The app of Instagram Login, which signs with a secret of its own.
    #[serde(default, deserialize_with = "app")]
    pub instagram: Option<MetaApp>,
    /// Access tokens by page id or Instagram account id.
    #[serde(default, deserialize_with = "tokens")]
    pub page_access_tokens: HashMap<String, SecretString>,
    /// For the on-behalf-of token exchange.
    pub partner_system_user_token: Option<SecretString>,
}

/// The field is optional: malformed entries are ignored rather than the secret refused.
fn tokens<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HashMap<String, SecretString>, D::Error> {
    let tokens = match Value::deserialize(deserializer)? {
        Value::Object(tokens) => tokens,
        _ => Map::new(),
    };
    let filled = tokens.into_iter().filter_map(|(account_id, token)| match token {
        Value::String(token) if !token.is_empty() => Some((account_id, token.into())),
        _ => None,
    });
    Ok(filled.collect())
}

/// An id, which people also write as a number.
fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::String(id) => Ok(id),
        Value::Number(id) => Ok(id.to_string()),
        _ => Err(serde::de::Error::custom("an app's id is a text")),
    }
}

/// An app that is not filled in costs the others nothing: it is as if it were not there.
fn app<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MetaApp>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    let app = value.map(serde_json::from_value).transpose();
    Ok(app.unwrap_or_else(|_| {
        tracing::error!(
            "an app beside the first one in the meta secret has no `app_secret`, and is left out"
        );
        None
    }))
}

/// An app beside the one that receives Messenger's webhooks.
#[derive(Debug, Deserialize)]
pub struct MetaApp {
    /// The app; signatures do without it.
    #[serde(default, deserialize_with = "id")]
    pub app_id: String,
    /// Signs webhooks and `appsecret_proof`.
    pub app_secret: SecretString,
    /// Still accepted after a rotation.
    pub previous_app_secret: Option<SecretString>,
}

impl MetaSecret {
    /// The secrets that may sign `/messenger/webhook`.
    #[must_use]
    pub fn messenger_app_secrets(&self) -> Vec<&SecretString> {
        let instagram = self.instagram.iter();
        let instagram =
            instagram.flat_map(|app| std::iter::once(&app.app_secret).chain(&app.previous_app_secret));
        std::iter::once(&self.app_secret)
            .chain(&self.previous_app_secret)
            .chain(instagram)
            .collect()
    }

    /// The secrets of all apps: a person may remove any of them.
    #[must_use]
    pub fn all_app_secrets(&self) -> Vec<&SecretString> {
        let mut secrets = self.messenger_app_secrets();
        secrets.extend(self.fbe.iter().flat_map(|_| self.fbe_app_secrets()));
        secrets
    }

    /// The secrets that may sign `/fbe/webhook`.
    #[must_use]
    pub fn fbe_app_secrets(&self) -> Vec<&SecretString> {
        let (current, previous) = match &self.fbe {
            Some(app) => (&app.app_secret, &app.previous_app_secret),
            None => (&self.app_secret, &self.previous_app_secret),
        };
        std::iter::once(current).chain(previous).collect()
    }

    /// What `hub.verify_token` must be on `/fbe/webhook`.
    #[must_use]
    pub fn fbe_verify_token(&self) -> &SecretString {
        self.fbe_verify_token.as_ref().unwrap_or(&self.verify_token)
    }

    /// Id and secret of the app that FBE calls are made for.
    #[must_use]
    pub fn fbe_app(&self) -> (&str, &SecretString) {
        self.fbe.as_ref().map_or((&self.app_id, &self.app_secret), |app| {
            (&app.app_id, &app.app_secret)
        })
    }
}

/// `<stack>/braze`
#[derive(Debug, Deserialize)]
pub struct BrazeSecret {
    /// Permissions `users.track` and `users.identify`.
    pub api_key: SecretString,
    /// Permission `campaigns.trigger.send`, if it is another key.
    pub trigger_api_key: Option<SecretString>,
}

impl BrazeSecret {
    /// The key that sends campaigns.
    #[must_use]
    pub fn trigger_api_key(&self) -> &SecretString {
        self.trigger_api_key.as_ref().unwrap_or(&self.api_key)
    }
}

/// `<stack>/relay`
#[derive(Debug, Deserialize)]
pub struct RelaySecret {
    /// The bearer token of `/whatsapp/inbound`.
    pub inbound_token: SecretString,
    /// Still accepted after a rotation.
    pub previous_inbound_token: Option<SecretString>,
    /// The bearer token to and from the external system.
    pub external_system_token: Option<SecretString>,
    /// Standard Webhooks key, `whsec_…`.
    pub signing_secret: SecretString,
    /// For an external system of kind `openai`.
    pub openai_api_key: Option<SecretString>,
    /// The bearer token of `/messenger/send`; without one it is that of `/whatsapp/inbound`.
    pub send_token: Option<SecretString>,
    /// Still accepted after a rotation.
    pub previous_send_token: Option<SecretString>,
    /// Credentials of routes, by their names.
    pub routes: Option<BTreeMap<String, RouteSecret>>,
}

/// What a route has of its own; what it leaves out comes from the relay's secret.
#[derive(Debug, Default, Deserialize)]
pub struct RouteSecret {
    /// Standard Webhooks key, `whsec_…`.
    pub signing_secret: Option<SecretString>,
    /// The bearer token to and from the external system.
    pub external_system_token: Option<SecretString>,
    /// For an external system of kind `openai`.
    pub openai_api_key: Option<SecretString>,
}

/// What an external system and we know each other by.
#[derive(Debug, Clone, Copy)]
pub struct RelayCredentials<'a> {
    /// Standard Webhooks key, `whsec_…`.
    pub signing_secret: &'a SecretString,
    /// The bearer token to and from the external system.
    pub external_system_token: Option<&'a SecretString>,
    /// For an external system of kind `openai`.
    pub openai_api_key: Option<&'a SecretString>,
}

impl RelaySecret {
    /// The credentials of the conversations on `route`.
    #[must_use]
    pub fn credentials(&self, route: Option<&str>) -> RelayCredentials<'_> {
        let own = route.and_then(|route| self.routes.as_ref()?.get(route));
        let token = own.and_then(|own| own.external_system_token.as_ref());
        let key = own.and_then(|own| own.openai_api_key.as_ref());
        RelayCredentials {
            signing_secret: own
                .and_then(|own| own.signing_secret.as_ref())
                .unwrap_or(&self.signing_secret),
            external_system_token: token.or(self.external_system_token.as_ref()),
            openai_api_key: key.or(self.openai_api_key.as_ref()),
        }
    }

    /// The credentials of every route, and those of the conversations on none.
    pub fn all_credentials(&self) -> impl Iterator<Item = RelayCredentials<'_>> {
        let routes = self.routes.iter().flat_map(BTreeMap::keys);
        let routes = routes.map(|route| self.credentials(Some(route)));
        std::iter::once(self.credentials(None)).chain(routes)
    }

    /// The tokens that open `/whatsapp/inbound`.
    pub fn inbound_tokens(&self) -> impl Iterator<Item = &SecretString> + Clone {
        std::iter::once(&self.inbound_token).chain(&self.previous_inbound_token)
    }

    /// The tokens that open `/messenger/send`.
    pub fn send_tokens(&self) -> impl Iterator<Item = &SecretString> + Clone {
        let inbound = self.send_token.is_none().then(|| self.inbound_tokens());
        let own = self.send_token.iter().chain(&self.previous_send_token);
        own.chain(inbound.into_iter().flatten())
    }
}

/// `<stack>/partner`
#[derive(Debug, Deserialize)]
pub struct PartnerSecret {
    /// The bearer token of `/fbe/installs`.
    pub api_token: SecretString,
    /// Still accepted after a rotation.
    pub previous_api_token: Option<SecretString>,
    /// Standard Webhooks key, `whsec_…`, that notices to the partner's platform are signed with.
    pub signing_secret: SecretString,
}

impl PartnerSecret {
    /// The tokens that open `/fbe/installs`.
    pub fn api_tokens(&self) -> impl Iterator<Item = &SecretString> + Clone {
        std::iter::once(&self.api_token).chain(&self.previous_api_token)
    }
}

/// `<stack>/link`
#[derive(Debug, Deserialize)]
pub struct LinkSecret {
    /// Signs link tokens (HS256).
    pub signing_key: SecretString,
    /// Still accepted after a rotation.
    pub previous_signing_key: Option<SecretString>,
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_routes_credentials_take_the_place_of_the_common_ones() {
        let secret: RelaySecret = serde_json::from_str(
            r#"{"inbound_token":"i","signing_secret":"whsec_a","external_system_token":"a","openai_api_key":"k",
                "routes":{"b":{"signing_secret":"whsec_b","external_system_token":"b"},"c":{}}}"#,
        )
        .unwrap();
        let of = |route| {
            let credentials = secret.credentials(route);
            let text = |secret: &SecretString| secret.expose_secret().to_owned();
            (
                text(credentials.signing_secret),
                credentials.external_system_token.map(text).unwrap(),
                credentials.openai_api_key.map(text).unwrap(),
            )
        };
        let expected = |signing: &str, token: &str| (signing.to_owned(), token.to_owned(), "k".to_owned());
        assert_eq!(of(None), expected("whsec_a", "a"));
        assert_eq!(of(Some("b")), expected("whsec_b", "b"));
        assert_eq!((of(Some("c")), of(Some("d"))), (of(None), of(None)));
        assert_eq!(secret.all_credentials().count(), 3);
        assert!(!format!("{secret:?}").contains("whsec_b"));
    }

    #[test]
    fn page_access_tokens_are_read_and_never_stop_the_rest() {
        let read = |tokens: &str| {
            let json = format!(
                r#"{{"app_id":"1","app_secret":"a","verify_token":"v","page_access_tokens":{tokens}}}"#
            );
            serde_json::from_str::<MetaSecret>(&json)
                .unwrap()
                .page_access_tokens
        };
        let tokens = read(r#"{"101":"token","102":"","103":7}"#);
        assert_eq!(tokens.keys().collect::<Vec<_>>(), ["101"]);
        assert_eq!(tokens["101"].expose_secret(), "token");
        for odd in ["{}", "null", "[]", "\"\"", "7"] {
            assert!(read(odd).is_empty(), "{odd}");
        }
    }

    #[test]
    fn an_apps_id_may_be_a_number() {
        let json = r#"{"app_id":1234,"app_secret":"a","verify_token":"v",
            "instagram":{"app_id":5678,"app_secret":"b"},"fbe":{"app_secret":"c"}}"#;
        let secret: MetaSecret = serde_json::from_str(json).unwrap();
        assert_eq!(
            (secret.app_id.as_str(), secret.instagram.unwrap().app_id.as_str()),
            ("1234", "5678")
        );
        assert_eq!(secret.fbe.unwrap().app_id, "");
    }

    #[test]
    fn debug_shows_no_value() {
        let secret: MetaSecret =
            serde_json::from_str(r#"{"app_id":"1","app_secret":"very-secret","verify_token":"very-secret"}"#)
                .unwrap();
        assert!(!format!("{secret:?}").contains("very-secret"));
    }
}
