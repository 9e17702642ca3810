//! Credentials for Graph, and what its refusals mean for a business.

use std::time::Duration;

use crate::settle::Outcome;
use secrecy::{ExposeSecret, SecretString};
use shared::clients::graph::{Credentials, ErrorKind, GraphApp, GraphError};
use shared::fbe::install::Install;
use shared::fbe::secret::FbeSecret;
use shared::fbe::secrets::Found;
use shared::outbox::Reason;
use shared::secrets::MetaSecret;
use shared::telemetry;

use super::Visit;
use super::token::{token_invalid, token_valid};

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
            app: GraphApp::new(id, secret),
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
    /// Whether a call that failed is worth one more try at once, because Meta did not know the app by what we hold
    /// of it and something else is in its secret by now. Then `access` has the new one, and the next failure is none of
    /// this kind: the secret is read again once a minute at most.
    pub(super) async fn app_changed(&self, access: &mut Access, error: &GraphError) -> bool {
        if error.kind != ErrorKind::App {
            return false;
        }
        let meta = match self.worker.meta.refresh().await {
            Ok(Some(meta)) => Ok(meta),
            // It was read again less than a minute ago.
            Ok(None) => self.worker.meta.get().await,
            Err(error) => Err(error),
        };
        let fresh = match meta {
            Ok(meta) => Access::of(&meta, &access.token),
            Err(error) => {
                tracing::warn!(%error, "the meta secret cannot be read again");
                return false;
            }
        };
        let is_same = fresh.app.id == access.app.id
            && fresh.app.secret.expose_secret() == access.app.secret.expose_secret();
        access.app = fresh.app;
        !is_same
    }

    /// The business's own secret.
    pub(super) async fn secret(&mut self) -> Result<Option<FbeSecret>, Outcome> {
        match self.worker.secrets.find(&self.stored.install).await? {
            Found::Secret(secret) => return Ok(Some(*secret)),
            Found::NotCurrent(secret, current) => {
                // A claim has taken effect, or two webhooks wrote at once. The next call would find it again.
                let made = self
                    .worker
                    .secrets
                    .make_current(&self.stored.install, &current)
                    .await;
                if let Err(error) = made {
                    tracing::warn!(%error, "the token in force is not the current version of its secret");
                }
                return Ok(Some(*secret));
            }
            Found::Absent => return Ok(None),
            Found::Deleted => {}
        }
        let source = |visit: &Self| {
            visit
                .stored
                .install
                .token
                .as_ref()
                .map(|token| token.source.clone())
        };
        let looked_for = source(self);
        self.read_again().await?;
        match source(self) {
            // The business has left since we read its install, and its secret stays deleted.
            None => return Err(Outcome::Done),
            now if now != looked_for => return Err(token_replaced()),
            // The token is in force: the deletion is that of a removal before it.
            Some(_) => {}
        }
        self.worker.secrets.restore(self.id()).await?;
        Ok(self.worker.secrets.of(&self.stored.install).await?)
    }

    /// The business's own token.
    pub(super) async fn access(&mut self) -> Result<Access, Outcome> {
        if self.token_refused {
            return Err(waiting());
        }
        let meta = self.worker.meta.get().await?;
        let secret = self.secret().await?;
        if let Some(token) = secret.as_ref().and_then(FbeSecret::token) {
            return Ok(Access::of(&meta, token));
        }
        if meta.partner_system_user_token.is_some() || self.stored.install.token.is_some() {
            // An exchange on behalf of the business is on its way, or the next webhook brings a token.
            return Err(Outcome::retry(Reason::NoToken));
        }
        self.has_no_token();
        Err(Outcome::Done)
    }

    pub(super) fn has_no_token(&self) {
        tracing::warn!(
            fbe.business = self.pseudonym(),
            "there is no token of a business, and none is asked for on its behalf"
        );
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

    /// Marks the install and notifies the business, once; its items wait for the next token.
    async fn token_was_refused(&mut self) -> Result<Outcome, Outcome> {
        let Some(version) = self
            .stored
            .install
            .token
            .as_ref()
            .map(|token| token.version.clone())
        else {
            return Ok(Outcome::retry(Reason::NoToken));
        };
        let plan = |install: &Install, configured, now| token_invalid(install, &version, configured, now);
        let is_marked = self.decide(plan).await?;
        let token = self.stored.install.token.as_ref();
        if is_marked {
            metrics::counter!(telemetry::CONFIGURATION_FAULTS).increment(1);
            // One that was exchanged is exchanged anew first.
            if token.is_some_and(|token| token.exchanged_at.is_none()) && self.owner_lost().await? {
                return Ok(token_replaced());
            }
        } else if token.is_none_or(|token| token.version != version) {
            return Ok(token_replaced());
        }
        self.token_refused = true;
        Ok(waiting())
    }

    /// Graph accepted the token: if it was marked as refused, it no longer is. `false`: another writer was faster, and
    /// the install was read again.
    pub(super) async fn token_was_taken(&mut self) -> Result<bool, Outcome> {
        match token_valid(
            &self.stored.install,
            self.worker.settings.fbe.configured(),
            self.now(),
        ) {
            Some(plan) => self.commit(plan).await,
            None => Ok(true),
        }
    }
}

/// Another token has arrived while we worked.
fn token_replaced() -> Outcome {
    Outcome::retry_after(Reason::TokenReplaced, Duration::from_secs(1))
}

fn waiting() -> Outcome {
    Outcome::waiting(Reason::TokenInvalid, TOKEN_WAIT)
}

/// What a failed call means where the token is not the question.
pub(super) fn outcome(error: &GraphError) -> Outcome {
    let reason = error.reason();
    match error.kind {
        ErrorKind::Retryable { wait } => Outcome::Retry { reason, wait },
        ErrorKind::ReduceData | ErrorKind::SentAnyway => Outcome::retry(reason),
        ErrorKind::TokenInvalid { .. } | ErrorKind::Permission => {
            Outcome::misconfigured_after(reason, TOKEN_WAIT)
        }
        // After a reset at Meta the new secret is about to be written: with our own, growing waits.
        ErrorKind::App => Outcome::misconfigured(reason),
        ErrorKind::Permanent { .. } => Outcome::Dead { reason },
    }
}
