//! A person's token becomes a system user's, which does not die with the person's password.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use shared::clients::graph::{ErrorKind, GraphError};
use shared::fbe::install::{Install, Status};
use shared::fbe::plan::ExchangeToken;
use shared::fbe::secret::{FbeSecret, TokenType};
use shared::fbe::secrets::Expected;
use shared::outbox::{Entry, Reason};

use super::Visit;
use super::access::{self, Access};
use super::token::{Obtained, exchanged, owner_lost};
use crate::settle::Outcome;

/// Meta removes an app before it tells of that.
const REMOVAL_COMES: Duration = Duration::from_mins(5);

/// A final refusal is one only the second time: until then a removal may have come that explains it, and with which there is
/// nothing to exchange any more.
pub(super) fn once_more(entry: &Entry, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Dead { reason } if entry.reason.as_ref() != Some(&reason) => {
            Outcome::retry_after(reason, REMOVAL_COMES)
        }
        outcome => outcome,
    }
}

/// A token, and when it ends.
type NewToken = (SecretString, Option<Timestamp>);

impl Visit<'_> {
    pub(super) async fn exchange(&mut self, payload: ExchangeToken) -> Result<(), Outcome> {
        let Some(manager) = self.stored.install.assets.business_manager_id.clone() else {
            // Graph may name one: the comparison plans the exchange anew.
            return Ok(());
        };
        let source = payload
            .source
            .as_ref()
            .filter(|_| payload.again || !payload.on_behalf_of);
        let (content, expected) = match source {
            Some(source) if payload.again => (
                self.again(source, payload.on_behalf_of, &manager).await?,
                Expected::Present,
            ),
            Some(source) => (self.own(source, &manager).await?, Expected::Present),
            None => (self.on_behalf(&manager).await?, Expected::Absent),
        };
        let Some(content) = content else {
            return Ok(());
        };
        let token = self.stored.install.token.as_ref();
        let named = token.map_or(Some(manager), |token| token.business_manager_id.clone());
        let secrets = &self.worker.secrets;
        secrets
            .write(self.id(), &content, named.as_deref(), expected)
            .await?;
        self.take_over(source.map(String::as_str), &content).await
    }

    /// The secret with the system user's token in place of the business's own; `None` if there is nothing to
    /// exchange any more.
    async fn own(&mut self, source: &str, manager: &str) -> Result<Option<FbeSecret>, Outcome> {
        let current = self.stored.install.token.as_ref();
        if current.is_none_or(|token| token.source != source || token.exchanged_at.is_some()) {
            return Ok(None);
        }
        let mut access = self.access().await?;
        let Some(secret) = self.secret().await? else {
            return Err(Outcome::retry(Reason::NoToken));
        };
        // Exchanged before a crash: only the commit is missing.
        if secret.system_user_access_token.is_some() {
            return Ok(Some(secret));
        }
        match self.ask_for_token(&mut access, manager).await {
            Ok((token, expires_at)) => Ok(Some(secret.exchanged(token, self.now(), expires_at))),
            Err(error) => Err(self.graph_failed(error).await),
        }
    }

    /// The secret with another system user's token, by the way that made the first: the person's token, or the
    /// partner's. `None` if another token has arrived, or if no way is left.
    async fn again(
        &mut self,
        source: &str,
        on_behalf_of: bool,
        manager: &str,
    ) -> Result<Option<FbeSecret>, Outcome> {
        let current = self.stored.install.token.as_ref();
        let Some(exchanged_at) = current
            .filter(|token| token.source == source)
            .map(|token| token.exchanged_at)
        else {
            return Ok(None);
        };
        let Some(secret) = self.secret().await? else {
            return Err(Outcome::retry(Reason::NoToken));
        };
        // Exchanged before a crash: only the commit is missing.
        if secret.exchanged_at > exchanged_at {
            return Ok(Some(secret));
        }
        let meta = self.worker.meta.get().await?;
        let own = secret.access_token.as_ref().filter(|_| !on_behalf_of);
        let mut refused = None;
        for token in own.into_iter().chain(&meta.partner_system_user_token) {
            let mut access = Access::of(&meta, token);
            match self.ask_for_token(&mut access, manager).await {
                Ok((token, expires_at)) => {
                    return Ok(Some(secret.exchanged(token, self.now(), expires_at)));
                }
                Err(error) if matches!(error.kind, ErrorKind::TokenInvalid { .. }) => refused = Some(error),
                Err(error) => return Err(access::outcome(&error)),
            }
        }
        tracing::warn!(
            fbe.business = self.pseudonym(),
            error = refused.map(|error| error.to_string()),
            "no other token of a system user can be had: the business has to log in again"
        );
        self.owner_lost().await?;
        Ok(None)
    }

    /// A refused token that nothing replaces ends the owner's install, if another Business Manager claims the business.
    pub(super) async fn owner_lost(&mut self) -> Result<bool, Outcome> {
        let lost = |install: &Install, configured, now| {
            let is_refused = install.status == Status::TokenInvalid;
            is_refused.then(|| owner_lost(install, configured, now)).flatten()
        };
        let is_lost = self.decide(lost).await?;
        if is_lost {
            self.owner_changed();
        }
        Ok(is_lost)
    }

    async fn ask_for_token(&self, access: &mut Access, manager: &str) -> Result<NewToken, GraphError> {
        let (graph, scopes) = (&self.worker.graph, &self.worker.settings.scopes);
        let created = loop {
            let asked = graph.create_access_token(access.credentials(), manager, self.id(), scopes);
            match asked.await {
                Err(error) if self.app_changed(access, &error).await => {}
                answer => break answer?,
            }
        };
        let expires_at = created
            .expires_in
            .and_then(|left| self.now().checked_add(left).ok());
        Ok((created.token, expires_at))
    }

    /// A secret with a token that the partner's own system user asked for.
    async fn on_behalf(&mut self, manager: &str) -> Result<Option<FbeSecret>, Outcome> {
        let install = &self.stored.install;
        let Some(granted_at) = install
            .granted
            .as_ref()
            .filter(|_| install.is_installed() && install.token.is_none())
            .map(|granted| granted.at)
        else {
            return Ok(None);
        };
        let meta = self.worker.meta.get().await?;
        let Some(partner) = &meta.partner_system_user_token else {
            // Once there is one, the daily comparison plans the exchange anew.
            self.has_no_token();
            return Ok(None);
        };
        if let Some(found) = self.left_by_a_crash(granted_at).await? {
            return Ok(Some(found));
        }
        let mut access = Access::of(&meta, partner);
        match self.ask_for_token(&mut access, manager).await {
            Ok((token, expires_at)) => {
                let secret = FbeSecret {
                    access_token: None,
                    token_type: TokenType::SystemUser,
                    system_user_access_token: None,
                    received_at: granted_at,
                    exchanged_at: None,
                    system_user_expires_at: None,
                };
                Ok(Some(secret.exchanged(token, self.now(), expires_at)))
            }
            Err(error) => {
                // The partner's token, not the business's: the meta secret has to be mended.
                tracing::warn!(%error, fbe.business = self.pseudonym(), "no token was given on behalf of a business");
                Err(access::outcome(&error))
            }
        }
    }

    async fn left_by_a_crash(&self, granted_at: Timestamp) -> Result<Option<FbeSecret>, Outcome> {
        let current = self.worker.secrets.current(self.id()).await?;
        Ok(current.filter(|secret| secret.is_of("") && secret.received_at == granted_at))
    }

    /// Names the new version in the install, unless the business left or another token arrived.
    async fn take_over(&mut self, source: Option<&str>, content: &FbeSecret) -> Result<(), Outcome> {
        let obtained = Obtained {
            source,
            version: &content.version(),
            expires_at: content.system_user_expires_at,
        };
        let plan = |install: &Install, configured, now| exchanged(install, &obtained, configured, now);
        if !self.decide(plan).await? && self.stored.install.keeps_no_token() {
            self.delete_secret().await?;
        }
        Ok(())
    }
}
