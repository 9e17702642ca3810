//! Each business's own secret, `<prefix>/<business>`: the only place where its tokens are.

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_secretsmanager::types::Tag;
use secrecy::ExposeSecret;

use crate::fbe::install::Install;
use crate::fbe::secret::{self, FbeSecret};
use crate::fbe::settings::FbeSecretSettings;
use crate::secrets::SecretError;

/// How long a deleted secret can be restored; the shortest that Secrets Manager knows.
const RECOVERY_DAYS: i64 = 7;

/// A write needs at most restore, create, put and one more after somebody else got in between.
const MAX_STEPS: usize = 6;

/// The secrets of all businesses.
#[derive(Debug, Clone)]
pub struct BusinessSecrets {
    client: Client,
    settings: FbeSecretSettings,
}

/// What is expected to be there before a write. Only the number of calls depends on it, never the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Absent,
    /// A secret in use.
    Present,
    /// A secret that may be scheduled for deletion.
    Deleted,
}

/// What there is of a secret.
#[derive(Debug)]
pub enum Found {
    /// The secret.
    Secret(Box<FbeSecret>),
    /// None, or another one.
    Absent,
    /// One that is scheduled for deletion.
    Deleted,
}

impl Found {
    fn secret(self) -> Option<FbeSecret> {
        match self {
            Self::Secret(secret) => Some(*secret),
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
    Other(String),
}

impl BusinessSecrets {
    /// Secrets as the settings name them.
    #[must_use]
    pub fn new(client: Client, settings: FbeSecretSettings) -> Self {
        Self { client, settings }
    }

    /// Writes `content` as the business's secret, whatever there was. Its version is [`FbeSecret::version`], and
    /// writing a version again changes nothing: if another was written in between, that one stays Secrets Manager's
    /// current one. What is in force is the version that the install names, by which [`Self::find`] reads it.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if Secrets Manager does not take it.
    pub async fn write(
        &self,
        business_id: &str,
        content: &FbeSecret,
        expected: Expected,
    ) -> Result<(), SecretError> {
        let name = self.name(business_id);
        let mut step = match expected {
            Expected::Absent => Step::Create,
            Expected::Present => Step::Put,
            Expected::Deleted => Step::Restore,
        };
        for _ in 0..MAX_STEPS {
            let result = match step {
                Step::Create => self.create(&name, content).await,
                Step::Put => self.put(&name, content).await,
                Step::Restore => self.bring_back(&name).await,
            };
            step = match (step, result) {
                (Step::Create | Step::Put, Ok(())) => return Ok(()),
                (Step::Restore, Ok(())) | (Step::Create, Err(Refusal::Exists)) => Step::Put,
                (Step::Create | Step::Put, Err(Refusal::Deleted)) => Step::Restore,
                (Step::Put | Step::Restore, Err(Refusal::Absent)) => Step::Create,
                (_, Err(refusal)) => return Err(unavailable(&name, refusal)),
            };
        }
        Err(unavailable(&name, Refusal::Other("it keeps changing".to_owned())))
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
        match self.read(&name, None).await? {
            // Two webhooks wrote at once, and the other one's is current.
            Found::Secret(secret) if !secret.is_of(&token.source) => {
                self.read(&name, Some(&token.version)).await
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
        Ok(self.read(&self.name(business_id), None).await?.secret())
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
        match answer.map_err(|error| refusal(&error)) {
            Ok(_) | Err(Refusal::Absent | Refusal::Deleted) => Ok(()),
            Err(refusal) => Err(unavailable(&name, refusal)),
        }
    }

    fn name(&self, business_id: &str) -> String {
        secret::name(&self.settings.prefix, business_id)
    }

    async fn create(&self, name: &str, content: &FbeSecret) -> Result<(), Refusal> {
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
        self.client
            .create_secret()
            .name(name)
            .description("Access tokens of a business that installed the app; written by fbe-install-webhook")
            .client_request_token(content.version())
            .set_kms_key_id(self.settings.encryption_key.clone())
            .tags(tag("Application", "meta-braze-bridge"))
            .tags(tag("Purpose", "fbe-install"))
            .secret_string(content.to_json().expose_secret())
            .send()
            .await
            .map(drop)
            .map_err(|error| refusal(&error))
    }

    async fn put(&self, name: &str, content: &FbeSecret) -> Result<(), Refusal> {
        self.client
            .put_secret_value()
            .secret_id(name)
            .client_request_token(content.version())
            .secret_string(content.to_json().expose_secret())
            .send()
            .await
            .map(drop)
            .map_err(|error| refusal(&error))
    }

    async fn bring_back(&self, name: &str) -> Result<(), Refusal> {
        let answer = self.client.restore_secret().secret_id(name).send().await;
        answer.map(drop).map_err(|error| refusal(&error))
    }

    async fn read(&self, name: &str, version: Option<&str>) -> Result<Found, SecretError> {
        let answer = self
            .client
            .get_secret_value()
            .secret_id(name)
            .set_version_id(version.map(str::to_owned))
            .send()
            .await;
        match answer.map_err(|error| refusal(&error)) {
            // serde_json's own words would quote the value.
            Ok(answer) => serde_json::from_str(answer.secret_string().unwrap_or_default())
                .map(Found::Secret)
                .map_err(|error| SecretError::Malformed {
                    id: name.to_owned(),
                    reason: format!("{:?} error at column {}", error.classify(), error.column()),
                }),
            Err(Refusal::Absent) => Ok(Found::Absent),
            Err(Refusal::Deleted) => Ok(Found::Deleted),
            Err(refusal) => Err(unavailable(name, refusal)),
        }
    }
}

fn unavailable(name: &str, refusal: Refusal) -> SecretError {
    let reason = match refusal {
        Refusal::Exists => "it exists already".to_owned(),
        Refusal::Absent => "it does not exist".to_owned(),
        Refusal::Deleted => "it is scheduled for deletion".to_owned(),
        Refusal::Other(reason) => reason,
    };
    SecretError::Unavailable {
        id: name.to_owned(),
        reason,
    }
}

/// Only the code is kept: what a request held must not come back in an error.
fn refusal<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Refusal {
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some("ResourceExistsException") => Refusal::Exists,
        Some("ResourceNotFoundException") => Refusal::Absent,
        // What is asked for here is refused as "invalid" for no other reason.
        Some("InvalidRequestException") => Refusal::Deleted,
        Some(code) => Refusal::Other(code.to_owned()),
        None => Refusal::Other(
            match error {
                SdkError::TimeoutError(_) => "timed out",
                SdkError::DispatchFailure(_) => "could not be reached",
                _ => "gave no readable answer",
            }
            .to_owned(),
        ),
    }
}
