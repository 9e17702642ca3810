//! Credentials for Graph, and what its refusals mean for a business.

use std::time::Duration;

use secrecy::SecretString;
use shared::clients::graph::{Credentials, ErrorKind, GraphApp, GraphError};
use shared::fbe::secret::FbeSecret;
use shared::fbe::token::{token_invalid, token_valid};
use shared::outbox::dispatch::Outcome;
use shared::secrets::MetaSecret;
use shared::telemetry;

use super::{ROUNDS, TOKEN_INVALID, Visit, contended, secrets_unavailable};

/// A refused token is tried again this often: it may come back to life when its person passes a check.
const TOKEN_WAIT: Duration = Duration::from_hours(1);

/// App and token of a call.
pub(super) struct Access {
    pub(super) app: GraphApp,
    pub(super) token: SecretString,
}

impl Access {
    pub(super) fn of(meta: &MetaSecret, token: &SecretString) -> Self {
        let (id, secret) = meta.fbe_app();
        Self {
            app: GraphApp {
                id: id.to_owned(),
                secret: secret.clone(),
            },
            token: token.clone(),
        }
    }

    pub(super) fn credentials(&self) -> Credentials<'_> {
        Credentials {
            app: &self.app,
            token: &self.token,
        }
    }
}

impl Visit<'_> {
    pub(super) async fn meta(&self) -> Result<std::sync::Arc<MetaSecret>, Outcome> {
        self.worker
            .meta
            .get()
            .await
            .map_err(|error| secrets_unavailable(&error))
    }

    /// The business's own secret.
    pub(super) async fn secret(&self) -> Result<Option<FbeSecret>, Outcome> {
        let secret = self.worker.secrets.of(&self.stored.install).await;
        secret.map_err(|error| secrets_unavailable(&error))
    }

    /// The business's own token.
    pub(super) async fn access(&self) -> Result<Access, Outcome> {
        if self.token_refused {
            return Err(waiting());
        }
        let meta = self.meta().await?;
        let secret = self.secret().await?;
        if let Some(token) = secret.as_ref().and_then(FbeSecret::token) {
            return Ok(Access::of(&meta, token));
        }
        if meta.partner_system_user_token.is_some() || self.stored.install.token.is_some() {
            // An exchange on behalf of the business is on its way, or the next webhook brings a token.
            return Err(Outcome::retry("no_token"));
        }
        tracing::warn!(
            fbe.business = self.pseudonym(),
            "a business came without a token, and the meta secret has no partner_system_user_token to ask with"
        );
        Err(Outcome::Done)
    }

    /// What a failed call with the business's own token means.
    pub(super) async fn graph_failed(&mut self, error: GraphError) -> Outcome {
        tracing::warn!(
            %error,
            fbe.business = self.pseudonym(),
            graph.trace = error.trace_id,
            "a call to Graph failed"
        );
        if !matches!(error.kind, ErrorKind::TokenInvalid { .. }) {
            return outcome(&error);
        }
        match self.token_was_refused().await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    /// Marks the install and tells the business, once; its items wait for the next token.
    async fn token_was_refused(&mut self) -> Result<Outcome, Outcome> {
        let Some(version) = self
            .stored
            .install
            .token
            .as_ref()
            .map(|token| token.version.clone())
        else {
            return Ok(Outcome::retry("no_token"));
        };
        for _ in 0..ROUNDS {
            let Some(plan) = token_invalid(&self.stored.install, &version, self.now()) else {
                let now = self.stored.install.token.as_ref().map(|token| &token.version);
                if now != Some(&version) {
                    // Another token has arrived while we asked.
                    return Ok(Outcome::Retry {
                        reason: "token_replaced".to_owned(),
                        wait: Some(Duration::from_secs(1)),
                    });
                }
                self.token_refused = true;
                return Ok(waiting());
            };
            if self.commit(plan).await? {
                metrics::counter!(telemetry::CONFIGURATION_FAULTS).increment(1);
                self.token_refused = true;
                return Ok(waiting());
            }
        }
        Ok(contended())
    }

    /// Graph took the token: if it was marked as refused, it no longer is. `false`: the install was written by
    /// somebody else and read again.
    pub(super) async fn token_was_taken(&mut self) -> Result<bool, Outcome> {
        match token_valid(&self.stored.install, self.now()) {
            Some(plan) => self.commit(plan).await,
            None => Ok(true),
        }
    }
}

fn waiting() -> Outcome {
    Outcome::Waiting {
        reason: TOKEN_INVALID.to_owned(),
        wait: TOKEN_WAIT,
    }
}

/// What a failed call means where the token is not the question.
pub(super) fn outcome(error: &GraphError) -> Outcome {
    let reason = match (error.code, error.subcode, error.status) {
        (Some(code), Some(subcode), _) => format!("graph_{code}_{subcode}"),
        (Some(code), None, _) => format!("graph_{code}"),
        (None, _, Some(status)) => format!("graph_status_{status}"),
        (None, _, None) => "graph_unreachable".to_owned(),
    };
    match error.kind {
        ErrorKind::Retryable { wait } => Outcome::Retry { reason, wait },
        ErrorKind::ReduceData | ErrorKind::SentAnyway => Outcome::retry(reason),
        ErrorKind::TokenInvalid { .. } | ErrorKind::Permission => Outcome::Misconfigured {
            reason,
            wait: Some(TOKEN_WAIT),
        },
        ErrorKind::Permanent { .. } => Outcome::Dead { reason },
    }
}
