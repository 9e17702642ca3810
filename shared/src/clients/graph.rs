//! Meta's Graph API, as far as FBE installs and the app's set-up need it.
//!
//! Where a token travels: as `Authorization: Bearer` where the call has no form, which is how Meta's own
//! plugins do it, so that URLs hold none ([`app`] names the two that have to); as the documented `access_token`
//! field in forms. Every call carries `appsecret_proof`: some refuse without, and any app can be set to ask for it.

pub mod answer;
pub mod app;
pub mod error;
mod list;
mod settings;
pub mod usage;

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::SignedDuration;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use sha2::Sha256;

pub use answer::{BatchAccepted, BatchStatus};
use answer::{access_token, batch_accepted, batch_status, done};
pub use error::{ErrorKind, GraphError};
pub use settings::{DEFAULT_VERSION, GraphSettings};
pub use usage::Usage;

use crate::json;

/// A full batch takes Meta longer than any other call.
const BATCH_TIMEOUT: Duration = Duration::from_mins(1);
/// Meta's pages of answers are far below 1 MiB; those of `check_batch_request_status` list up to 5,000 items with their
/// errors.
const MAX_ANSWER_BODY: usize = 8 * 1024 * 1024;
/// Pages of `fbe_installs` that are followed. One business has one install, so more is a loop.
const MOST_INSTALLS: usize = 20;

/// The Meta app in whose name calls are made.
#[derive(Debug, Clone)]
pub struct GraphApp {
    /// App id.
    pub id: String,
    /// App secret.
    pub secret: SecretString,
}

impl GraphApp {
    /// The app of this id and secret.
    #[must_use]
    pub fn new(id: &str, secret: &SecretString) -> Self {
        let (id, secret) = (id.to_owned(), secret.clone());
        Self { id, secret }
    }
}

/// The credentials of one call.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// The app that the token belongs to.
    pub app: &'a GraphApp,
    /// The token.
    pub token: &'a SecretString,
}

impl Credentials<'_> {
    /// `appsecret_proof`: HMAC-SHA256 of the token under the app secret, in lower-case hexadecimal.
    #[must_use]
    pub fn proof(&self) -> String {
        let key = self.app.secret.expose_secret().as_bytes();
        // HMAC takes keys of any length.
        Hmac::<Sha256>::new_from_slice(key).map_or_else(
            |_| String::new(),
            |mut mac| {
                mac.update(self.token.expose_secret().as_bytes());
                hex::encode(mac.finalize().into_bytes())
            },
        )
    }
}

/// A token that Graph has made.
#[derive(Debug, Clone)]
pub struct CreatedToken {
    /// The token.
    pub token: SecretString,
    /// How long it lives; `None`: it has no known end.
    pub expires_in: Option<SignedDuration>,
}

/// Seconds, as a number or a text; 0 and nothing mean that there is no end.
fn expires_in(answer: &Value) -> Option<SignedDuration> {
    let seconds = json::member(answer, "expires_in").integer();
    seconds
        .filter(|seconds| *seconds > 0)
        .map(SignedDuration::from_secs)
}

/// Speaks to Graph. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GraphClient {
    http: reqwest::Client,
    /// Host and version.
    base: String,
}

impl GraphClient {
    /// A client for the host and version in `settings`.
    #[must_use]
    pub fn new(http: reqwest::Client, settings: &GraphSettings) -> Self {
        Self {
            http,
            base: format!("{}/{}", settings.url, settings.version),
        }
    }

    /// Exchanges a token for that of the system user that FBE made in the client's Business Manager.
    /// `credentials.token` is the person's token, or the partner's own system user's to ask on behalf of the
    /// business.
    pub async fn create_access_token(
        &self,
        credentials: Credentials<'_>,
        business_manager_id: &str,
        business_id: &str,
        scopes: &[String],
    ) -> Result<CreatedToken, GraphError> {
        let form = [
            ("app_id", credentials.app.id.as_str()),
            ("scope", &scopes.join(",")),
            ("fbe_external_business_id", business_id),
            ("access_token", credentials.token.expose_secret()),
            ("appsecret_proof", &credentials.proof()),
        ];
        let request = self.post(&[business_manager_id, "access_token"])?.form(&form);
        let answer = self.request(request).await?;
        Ok(CreatedToken {
            token: access_token(&answer)?,
            expires_in: expires_in(&answer),
        })
    }

    /// What Meta says is installed: the members of `data`, of every page. Empty = not installed.
    pub async fn fbe_installs(
        &self,
        credentials: Credentials<'_>,
        business_id: &str,
    ) -> Result<Vec<Value>, GraphError> {
        let query = [("fbe_external_business_id", business_id)];
        self.list(
            credentials,
            &["fbe_business", "fbe_installs"],
            &query,
            MOST_INSTALLS,
        )
        .await
    }

    /// Removes the app from a business, from our side.
    pub async fn delete_fbe_installs(
        &self,
        credentials: Credentials<'_>,
        business_id: &str,
    ) -> Result<(), GraphError> {
        let request = self
            .authorised(Method::DELETE, &["fbe_business", "fbe_installs"], credentials)?
            .query(&[("fbe_external_business_id", business_id)]);
        done(&self.request(request).await?)
    }

    /// The configuration of a business's features.
    pub async fn fbe_business(
        &self,
        credentials: Credentials<'_>,
        business_id: &str,
    ) -> Result<Value, GraphError> {
        let request = self
            .authorised(Method::GET, &["fbe_business"], credentials)?
            .query(&[("fbe_external_business_id", business_id)]);
        self.request(request).await
    }

    /// Changes the configuration; see [`crate::fbe::config_patch`] for what to post.
    pub async fn update_fbe_business(
        &self,
        credentials: Credentials<'_>,
        business_id: &str,
        business_config: &Value,
    ) -> Result<(), GraphError> {
        let form = [
            ("fbe_external_business_id", business_id),
            ("business_config", &business_config.to_string()),
            ("access_token", credentials.token.expose_secret()),
            ("appsecret_proof", &credentials.proof()),
        ];
        let request = self.post(&["fbe_business"])?.form(&form);
        done(&self.request(request).await?)
    }

    /// Sends a message. `sender` is the page, or `me` for an Instagram account; `body` is the Send API's. Gives how close
    /// Graph is to refusing calls.
    /// (<https://developers.facebook.com/docs/messenger-platform/reference/send-api>)
    pub async fn send_message(
        &self,
        credentials: Credentials<'_>,
        sender: &str,
        body: &Value,
    ) -> Result<Usage, GraphError> {
        let request = self.authorised(Method::POST, &[sender, "messages"], credentials)?;
        // The status says that Meta has it. What the answer holds beside that is of no use.
        Ok(self.exchange(request.json(body)).await?.1)
    }

    /// Creates or updates the items of a batch. `requests` is the list of them, which takes `bytes` as JSON.
    pub async fn items_batch(
        &self,
        credentials: Credentials<'_>,
        catalog_id: &str,
        requests: &impl Serialize,
        bytes: usize,
    ) -> Result<BatchAccepted, GraphError> {
        #[derive(Serialize)]
        struct Body<'a, Requests> {
            allow_upsert: bool,
            item_type: &'static str,
            requests: &'a Requests,
        }
        // Written into one piece of memory of the right size: a buffer that grows would take up to three times as much.
        let mut body = Vec::with_capacity(bytes + 128);
        let written = serde_json::to_writer(
            &mut body,
            &Body {
                allow_upsert: true,
                item_type: "PRODUCT_ITEM",
                requests,
            },
        );
        written.map_err(|_| GraphError::unsendable("a batch that is not JSON"))?;
        let request = self
            .authorised(Method::POST, &[catalog_id, "items_batch"], credentials)?
            .timeout(BATCH_TIMEOUT)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        Ok(batch_accepted(&self.request(request).await?))
    }

    /// Asks how far Meta is with a batch.
    pub async fn check_batch_request_status(
        &self,
        credentials: Credentials<'_>,
        catalog_id: &str,
        handle: &str,
    ) -> Result<BatchStatus, GraphError> {
        let request = self
            .authorised(
                Method::GET,
                &[catalog_id, "check_batch_request_status"],
                credentials,
            )?
            .query(&[("handle", handle), ("load_ids_of_invalid_requests", "true")]);
        Ok(batch_status(&self.request(request).await?))
    }

    /// Ids come from payloads: none may lead to another path.
    fn url(&self, path: &[&str]) -> Result<String, GraphError> {
        let mut url = self.base.clone();
        for segment in path {
            // URLs are resolved, and dots mean the same there however they are encoded.
            if matches!(*segment, "." | "..") {
                return Err(GraphError::unsendable("an id that is no part of a path"));
            }
            url.push('/');
            if segment
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
            {
                url.push_str(segment);
            } else {
                url.extend(utf8_percent_encode(segment, NON_ALPHANUMERIC));
            }
        }
        Ok(url)
    }

    fn post(&self, path: &[&str]) -> Result<RequestBuilder, GraphError> {
        Ok(self.http.post(self.url(path)?))
    }

    fn authorised(
        &self,
        method: Method,
        path: &[&str],
        credentials: Credentials<'_>,
    ) -> Result<RequestBuilder, GraphError> {
        let request = self.http.request(method, self.url(path)?);
        Ok(request
            .bearer_auth(credentials.token.expose_secret())
            .query(&[("appsecret_proof", credentials.proof())]))
    }

    async fn request(&self, request: RequestBuilder) -> Result<Value, GraphError> {
        Ok(self.request_with_usage(request).await?.0)
    }

    /// The answer, and the fill level of the limits.
    async fn request_with_usage(&self, request: RequestBuilder) -> Result<(Value, Usage), GraphError> {
        let (value, usage) = self.exchange(request).await?;
        let value = value.ok_or_else(|| answer::unreadable("an answer that is not JSON"))?;
        Ok((value, usage))
    }

    /// The same; no answer if it says that it is fine and cannot be read.
    async fn exchange(&self, request: RequestBuilder) -> Result<(Option<Value>, Usage), GraphError> {
        let response = request.send().await.map_err(GraphError::transport)?;
        let status = response.status();
        let usage = Usage::read(response.headers());
        let wait = usage::wait(response.headers());
        let body = crate::clients::http::body(response, MAX_ANSWER_BODY).await;
        // An answer that is too large, or was cut off, is one that cannot be read.
        let body = match body {
            Err(error) if !status.is_success() => return Err(GraphError::transport(error)),
            body => body.ok().flatten().unwrap_or_default(),
        };
        let value: Option<Value> = json::read(&body).ok();
        // Some errors come with status 200.
        let is_error = value.as_ref().is_some_and(|value| value.get("error").is_some());
        if status.is_success() && !is_error {
            Ok((value, usage))
        } else {
            Err(GraphError::from_answer(status, &body, wait))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> GraphApp {
        GraphApp {
            id: "1".into(),
            secret: "app_secret_for_tests".into(),
        }
    }

    fn client() -> GraphClient {
        let settings = GraphSettings {
            // Nothing listens on port 1, so every call fails to connect.
            url: "http://127.0.0.1:1".into(),
            version: "v25.0".into(),
        };
        GraphClient::new(crate::clients::http::client(Duration::from_secs(1)), &settings)
    }

    #[test]
    fn the_proof_is_metas() {
        // Computed with an independent HMAC tool.
        let (app, token) = (app(), "EAAB_test_token".into());
        let credentials = Credentials {
            app: &app,
            token: &token,
        };
        assert_eq!(
            credentials.proof(),
            "9acf8f3fb5dddd44f8db3007b6b65c03dd65392c828470304e1ff3493457d1c5"
        );
        let shown = format!("{credentials:?}");
        assert!(
            !shown.contains("EAAB") && !shown.contains("app_secret"),
            "{shown}"
        );
    }

    #[test]
    fn an_id_never_leads_to_another_path() {
        assert_eq!(
            client().url(&["12", "items_batch"]).unwrap(),
            "http://127.0.0.1:1/v25.0/12/items_batch"
        );
        assert_eq!(
            client().url(&["../me?x=", "access_token"]).unwrap(),
            "http://127.0.0.1:1/v25.0/%2E%2E%2Fme%3Fx%3D/access_token"
        );
        for dots in [".", ".."] {
            let error = client().url(&[dots, "access_token"]).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Permanent { code: None });
        }
    }

    #[tokio::test]
    async fn an_error_without_an_answer_shows_neither_token_nor_url() {
        let (app, token) = (app(), "EAAB_test_token".into());
        let credentials = Credentials {
            app: &app,
            token: &token,
        };
        let error = client().fbe_installs(credentials, "b").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Retryable { wait: None });
        let shown = format!("{error} {error:?}");
        for hidden in ["EAAB", "9acf", "127.0.0.1"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
    }
}
