//! A person's token becomes a system user's, which does not die with the person's password.

use crate::settle::Outcome;
use jiff::Timestamp;
use secrecy::SecretString;
use shared::clients::graph::GraphError;
use shared::fbe::plan::ExchangeToken;
use shared::fbe::secret::{FbeSecret, TokenType};
use shared::fbe::secrets::Expected;
use shared::fbe::token::exchanged;
use shared::outbox::Reason;
use shared::store::Rounds;

use super::access::{self, Access};
use super::{CONTENDED, Visit, contended, secrets_unavailable};

impl Visit<'_> {
    pub(super) async fn exchange(&mut self, payload: ExchangeToken) -> Result<(), Outcome> {
        let Some(manager) = self.stored.install.assets.business_manager_id.clone() else {
            // Graph may name one: the comparison plans the exchange anew.
            return Ok(());
        };
        let source = payload.source.filter(|_| !payload.on_behalf_of);
        let (content, expected) = match &source {
            Some(source) => (self.own(source, &manager).await?, Expected::Present),
            None => (self.on_behalf(&manager).await?, Expected::Absent),
        };
        let Some(content) = content else {
            return Ok(());
        };
        let written = self.worker.secrets.write(self.id(), &content, expected).await;
        written.map_err(|error| secrets_unavailable(&error))?;
        self.take_over(source.as_deref(), &content.version()).await
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
            Ok(token) => Ok(Some(secret.exchanged(token, self.now()))),
            Err(error) => Err(self.graph_failed(error).await),
        }
    }

    async fn ask_for_token(&self, access: &mut Access, manager: &str) -> Result<SecretString, GraphError> {
        let (graph, scopes) = (&self.worker.graph, &self.worker.settings.scopes);
        let mut answer = graph
            .create_access_token(access.credentials(), manager, self.id(), scopes)
            .await;
        if let Err(error) = &answer
            && self.app_changed(access, error).await
        {
            answer = graph
                .create_access_token(access.credentials(), manager, self.id(), scopes)
                .await;
        }
        answer.map(|answer| answer.value)
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
        let meta = self.meta().await?;
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
            Ok(token) => {
                let secret = FbeSecret {
                    access_token: None,
                    token_type: TokenType::SystemUser,
                    system_user_access_token: None,
                    received_at: granted_at,
                    exchanged_at: None,
                };
                Ok(Some(secret.exchanged(token, self.now())))
            }
            Err(error) => {
                // The partner's token, not the business's: somebody has to mend the meta secret.
                tracing::warn!(%error, fbe.business = self.pseudonym(), "no token was given on behalf of a business");
                Err(access::outcome(&error))
            }
        }
    }

    async fn left_by_a_crash(&self, granted_at: Timestamp) -> Result<Option<FbeSecret>, Outcome> {
        let current = self.worker.secrets.current(self.id()).await;
        let current = current.map_err(|error| secrets_unavailable(&error))?;
        Ok(current.filter(|secret| secret.is_of("") && secret.received_at == granted_at))
    }

    /// Names the new version in the install, unless the business left or another token arrived.
    async fn take_over(&mut self, source: Option<&str>, version: &str) -> Result<(), Outcome> {
        let mut rounds = Rounds::new(CONTENDED);
        loop {
            let (install, settings) = (&self.stored.install, &self.worker.settings);
            let Some(plan) = exchanged(install, source, version, settings, self.now()) else {
                if self.stored.install.token.is_none() {
                    self.delete_secret().await?;
                }
                return Ok(());
            };
            if self.commit(plan).await? {
                return Ok(());
            }
            rounds.next().await.map_err(|error| contended(&error))?;
        }
    }
}
