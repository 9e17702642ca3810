//! Each business's own secret, `<prefix>/<business>`: the only place where its tokens are.
//!
//! The newest token of each Business Manager is a version of the secret under a staging label of its own
//! (`manager-…`), which keeps the version from being removed. The owner's is the current one too; a claim's is not, so
//! nothing that asks for the secret's value gets it. A webhook writes either without reading the secret, which it may
//! not, and two that write at once do not overwrite each other's.

use std::error::Error;
use std::fmt::Debug;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::types::Tag;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use crate::digest::Digest;
use crate::fbe::install::Install;
use crate::fbe::manager::TokenState;
use crate::fbe::secret::{self, FbeSecret};
use crate::fbe::settings::FbeSecretSettings;
use crate::sdk_error;
use crate::secrets::SecretError;

/// How long a deleted secret can be restored; the shortest that Secrets Manager knows.
const RECOVERY_DAYS: i64 = 7;

/// A write needs at most restore, create, put and one more after another writer got in between.
const MAX_STEPS: usize = 6;

/// A version without a token.
const EMPTY: &str = "{}";
/// The id of the empty version that a secret begins with whose first token is a claim's.
const EMPTY_VERSION: &str = "a-secret-without-a-token-yet-0000";

/// The label of the version in use.
const CURRENT: &str = "AWSCURRENT";

/// The secrets of all businesses.
#[derive(Debug, Clone)]
pub struct BusinessSecrets {
    client: Client,
    settings: FbeSecretSettings,
}

/// What is expected to be there before a write: only the number of calls depends on that, never the result. And whether
/// it stays the current version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// A secret in use.
    Present,
    /// A secret that may be scheduled for deletion.
    Deleted,
    /// A secret in use, whose version stays the current one: the token is a claim's, and is not in use.
    Beside,
}

/// What there is of a secret.
#[derive(Debug)]
pub enum Found {
    /// The secret.
    Secret(Box<FbeSecret>),
    /// The secret, while another version (this one) is the current one.
    NotCurrent(Box<FbeSecret>, String),
    /// None, or another one.
    Absent,
    /// One that is scheduled for deletion.
    Deleted,
}

impl Found {
    fn secret(self) -> Option<FbeSecret> {
        match self {
            Self::Secret(secret) | Self::NotCurrent(secret, _) => Some(*secret),
            Self::Absent | Self::Deleted => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Step {
    Create,
    Put,
    Restore,
}

enum Refusal {
    Exists,
    Absent,
    Deleted,
    /// A label was not moved, because another version has it.
    Attached,
    Other(String),
}

impl BusinessSecrets {
    /// Secrets as the settings name them.
    #[must_use]
    pub fn new(client: Client, settings: FbeSecretSettings) -> Self {
        Self { client, settings }
    }

    /// Writes `content`, a token of `manager`, as the business's secret: in place of any other value, or beside it. Its
    /// version is [`FbeSecret::version`], and writing a version again changes nothing: if another was written in between,
    /// that one stays Secrets Manager's current one. What is in force is the version that the install names, by which
    /// [`Self::find`] reads it.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if Secrets Manager does not take it.
    pub async fn write(
        &self,
        business_id: &str,
        content: &FbeSecret,
        manager: Option<&str>,
        expected: Expected,
    ) -> Result<(), SecretError> {
        let name = self.name(business_id);
        let mut step = match expected {
            Expected::Absent => Step::Create,
            Expected::Present | Expected::Beside => Step::Put,
            Expected::Deleted => Step::Restore,
        };
        // The first version of a secret is its current one, and a claim's must not be.
        let is_claim = expected == Expected::Beside;
        let current = (!is_claim).then(|| CURRENT.to_owned());
        let labels: Vec<String> = current.into_iter().chain([label(manager)]).collect();
        for _ in 0..MAX_STEPS {
            let result = match step {
                Step::Create if is_claim => self.create(&name, EMPTY_VERSION.to_owned(), EMPTY.into()).await,
                Step::Create => self.create(&name, content.version(), content.to_json()).await,
                Step::Put => {
                    self.put(&name, content.version(), content.to_json(), labels.clone())
                        .await
                }
                Step::Restore => self.bring_back(&name).await,
            };
            step = match (step, result) {
                (Step::Create, Ok(())) if is_claim => Step::Put,
                (Step::Create | Step::Put, Ok(())) => return Ok(()),
                (Step::Restore, Ok(())) | (Step::Create, Err(Refusal::Exists)) => Step::Put,
                (Step::Create | Step::Put, Err(Refusal::Deleted)) => Step::Restore,
                (Step::Put | Step::Restore, Err(Refusal::Absent)) => Step::Create,
                (_, Err(refusal)) => return Err(unavailable(&name, refusal)),
            };
        }
        Err(unavailable(&name, Refusal::Other("it keeps changing".to_owned())))
    }

    /// Keeps the version of a token that is about to be the current one no longer: a secret is created without the label of
    /// its first token's Business Manager. Where a newer token of that manager has the label, nothing is to be done.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if Secrets Manager does not do it.
    pub async fn keep(&self, business_id: &str, token: &TokenState) -> Result<(), SecretError> {
        let name = self.name(business_id);
        let answer = self
            .client
            .update_secret_version_stage()
            .secret_id(&name)
            .version_stage(label(token.business_manager_id.as_deref()))
            .move_to_version_id(&token.version)
            .send()
            .await;
        done_or_gone(&name, answer.map_err(|error| refusal(&error)))
    }

    /// Drops the token of a claim that was removed at `at`: its label moves to an empty version, and Secrets Manager
    /// removes versions without one. Where there is no secret, nothing is to be done.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if Secrets Manager does not do it.
    pub async fn drop_claim(
        &self,
        business_id: &str,
        manager: Option<&str>,
        at: Timestamp,
    ) -> Result<(), SecretError> {
        let (name, label) = (self.name(business_id), label(manager));
        let version = Digest::of_parts(["dropped", &label, &at.to_string()]).to_string();
        done_or_gone(&name, self.put(&name, version, EMPTY.into(), vec![label]).await)
    }

    /// Makes the version that the install names the current one, in place of `current`.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if Secrets Manager does not do it.
    pub async fn make_current(&self, install: &Install, current: &str) -> Result<(), SecretError> {
        let Some(token) = &install.token else {
            return Ok(());
        };
        let name = self.name(&install.business_id);
        self.client
            .update_secret_version_stage()
            .secret_id(&name)
            .version_stage(CURRENT)
            .move_to_version_id(&token.version)
            .remove_from_version_id(current)
            .send()
            .await
            .map(drop)
            .map_err(|error| unavailable(&name, refusal(&error)))
    }

    /// Looks for the secret that holds the install's token. One that is scheduled for deletion belongs to a removal:
    /// either the install that was read is out of date, or the removal was overtaken by the next install. Only the
    /// second may be [restored](Self::restore).
    ///
    /// # Errors
    ///
    /// [`SecretError`] if Secrets Manager does not give it.
    pub async fn find(&self, install: &Install) -> Result<Found, SecretError> {
        let Some(token) = &install.token else {
            return Ok(Found::Absent);
        };
        let name = self.name(&install.business_id);
        let (found, current) = self.read(&name, None).await?;
        match found {
            Found::Secret(secret) if secret.is_of(&token.source) => Ok(Found::Secret(secret)),
            // A claim has taken effect, perhaps the secret's first token; or two webhooks wrote at once and the other
            // one's is current.
            Found::Secret(_) | Found::Absent if !current.is_empty() => {
                match self.read(&name, Some(&token.version)).await?.0 {
                    Found::Secret(secret) => Ok(Found::NotCurrent(secret, current)),
                    found => Ok(found),
                }
            }
            found => Ok(found),
        }
    }

    /// The secret that holds the install's token, if it is in use.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if Secrets Manager does not give it.
    pub async fn of(&self, install: &Install) -> Result<Option<FbeSecret>, SecretError> {
        Ok(self.find(install).await?.secret())
    }

    /// Takes back a scheduled deletion.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if Secrets Manager does not do it.
    pub async fn restore(&self, business_id: &str) -> Result<(), SecretError> {
        let name = self.name(business_id);
        let restored = self.bring_back(&name).await;
        restored.map_err(|refusal| unavailable(&name, refusal))
    }

    /// The business's secret as it is now, if there is one in use.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if Secrets Manager does not give it.
    pub async fn current(&self, business_id: &str) -> Result<Option<FbeSecret>, SecretError> {
        Ok(self.read(&self.name(business_id), None).await?.0.secret())
    }

    /// Schedules the secret for deletion. One that is not there, or already scheduled, is as good.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if Secrets Manager does not do it.
    pub async fn schedule_deletion(&self, business_id: &str) -> Result<(), SecretError> {
        let name = self.name(business_id);
        let answer = self
            .client
            .delete_secret()
            .secret_id(&name)
            .recovery_window_in_days(RECOVERY_DAYS)
            .send()
            .await;
        done_or_gone(&name, answer.map_err(|error| refusal(&error)))
    }

    fn name(&self, business_id: &str) -> String {
        secret::name(&self.settings.prefix, business_id)
    }

    async fn create(&self, name: &str, version: String, value: SecretString) -> Result<(), Refusal> {
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        self.client
            .create_secret()
            .name(name)
            .description("Access tokens of a business that installed the app; written by fbe-install-webhook")
            .client_request_token(version)
            .set_kms_key_id(self.settings.encryption_key.clone())
            .tags(tag("Application", "meta-braze-bridge"))
            .tags(tag("Purpose", "fbe-install"))
            .secret_string(value.expose_secret())
            .send()
            .await
            .map(drop)
            .map_err(|error| refusal(&error))
    }

    async fn put(
        &self,
        name: &str,
        version: String,
        value: SecretString,
        labels: Vec<String>,
    ) -> Result<(), Refusal> {
        self.client
            .put_secret_value()
            .secret_id(name)
            .client_request_token(version)
            .secret_string(value.expose_secret())
            .set_version_stages(Some(labels))
            .send()
            .await
            .map(drop)
            .map_err(|error| refusal(&error))
    }

    async fn bring_back(&self, name: &str) -> Result<(), Refusal> {
        let answer = self.client.restore_secret().secret_id(name).send().await;
        answer.map(drop).map_err(|error| refusal(&error))
    }

    /// What there is of a version, the current one by default, and the version's id, which is empty if there is no such
    /// version.
    async fn read(&self, name: &str, version: Option<&str>) -> Result<(Found, String), SecretError> {
        let answer = self
            .client
            .get_secret_value()
            .secret_id(name)
            .set_version_id(version.map(str::to_owned))
            .send()
            .await;
        let found = match answer.map_err(|error| refusal(&error)) {
            Ok(answer) if answer.secret_string() == Some(EMPTY) => {
                return Ok((Found::Absent, answer.version_id.unwrap_or_default()));
            }
            Ok(answer) => {
                // serde_json's own words would quote the value.
                let secret = serde_json::from_str(answer.secret_string().unwrap_or_default());
                let secret = secret.map_err(|error| SecretError::Malformed {
                    id: name.to_owned(),
                    reason: format!("{:?} error at column {}", error.classify(), error.column()),
                })?;
                let version = answer.version_id.unwrap_or_default();
                return Ok((Found::Secret(secret), version));
            }
            Err(Refusal::Absent) => Found::Absent,
            Err(Refusal::Deleted) => Found::Deleted,
            Err(refusal) => return Err(unavailable(name, refusal)),
        };
        Ok((found, String::new()))
    }
}

/// The staging label of a Business Manager's token.
fn label(manager: Option<&str>) -> String {
    // Ids come from payloads, and a label is shorter than they may be.
    let digest = manager.map(|manager| Digest::of_parts(["manager", manager]).to_string());
    let name = digest.as_ref().and_then(|digest| digest.get(..16));
    format!("manager-{}", name.unwrap_or("unnamed"))
}

/// Where there is no secret, or a newer token has the label, nothing is to be done.
fn done_or_gone<T>(name: &str, answer: Result<T, Refusal>) -> Result<(), SecretError> {
    match answer {
        Ok(_) | Err(Refusal::Absent | Refusal::Deleted | Refusal::Attached) => Ok(()),
        Err(refusal) => Err(unavailable(name, refusal)),
    }
}

fn unavailable(name: &str, refusal: Refusal) -> SecretError {
    let refused = !matches!(refusal, Refusal::Attached | Refusal::Other(_));
    let reason = match refusal {
        Refusal::Exists => "it exists already".to_owned(),
        Refusal::Absent => "it does not exist".to_owned(),
        Refusal::Deleted => "it is scheduled for deletion".to_owned(),
        Refusal::Attached => "another version has its label".to_owned(),
        Refusal::Other(reason) => reason,
    };
    SecretError::Unavailable {
        id: name.to_owned(),
        reason,
        refused,
    }
}

/// Of an answer only the code is kept: what a request held must not come back in an error.
fn refusal<E, R>(error: &SdkError<E, R>) -> Refusal
where
    E: ProvideErrorMetadata + Error + 'static,
    R: Debug,
{
    let answered = error.as_service_error();
    let message = answered
        .and_then(ProvideErrorMetadata::message)
        .unwrap_or_default();
    match answered.and_then(ProvideErrorMetadata::code) {
        Some("ResourceExistsException") => Refusal::Exists,
        Some("ResourceNotFoundException") => Refusal::Absent,
        // What is asked for here is refused as "invalid" for no other reason.
        Some("InvalidRequestException") => Refusal::Deleted,
        // The code of any wrong parameter: the message names the one that is missing.
        Some("InvalidParameterException") if message.contains("RemoveFromVersionId") => Refusal::Attached,
        _ => Refusal::Other(sdk_error::reason(error)),
    }
}
