//! The webhook was a hint, Graph's answer is the truth.

use crate::settle::Outcome;
use shared::fbe::install::pixel_rivals;
use shared::fbe::read;
use shared::fbe::reconcile::{Verdict, reconcile};
use shared::fbe::token::exchange_again;
use shared::outbox::Kind;
use shared::store::Rounds;
use shared::telemetry;

use super::{CONTENDED, Visit, contended};

impl Visit<'_> {
    pub(super) async fn reconcile(&mut self) -> Result<(), Outcome> {
        let mut rounds = Rounds::new(CONTENDED);
        loop {
            if !self.stored.install.is_installed() {
                // The deletion may have been cut off after the commit.
                return self.delete_secret().await;
            }
            let is_on_its_way = self.exchange_again().await?;
            if self.stored.install.token.is_none() && !is_on_its_way {
                // There is nothing to ask Graph with, and waiting changes nothing.
                self.has_no_token();
                return Ok(());
            }
            let mut access = self.access().await?;
            let graph = &self.worker.graph;
            let mut answer = graph.fbe_installs(access.credentials(), self.id()).await;
            if let Err(error) = &answer
                && self.app_changed(&mut access, error).await
            {
                answer = graph.fbe_installs(access.credentials(), self.id()).await;
            }
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => return Err(self.graph_failed(error).await),
            };
            // After a conflict Graph is asked again: its answer may be older than the webhook that won.
            if !self.token_was_taken().await? {
                rounds.next().await.map_err(|error| contended(&error))?;
                continue;
            }
            let granted = read::installs(&answer.value);
            let found = reconcile(
                &self.stored.install,
                granted.as_ref(),
                &self.worker.settings,
                self.now(),
            );
            if let Some(plan) = found.plan
                && !self.commit(plan).await?
            {
                rounds.next().await.map_err(|error| contended(&error))?;
                continue;
            }
            self.report(found.verdict, found.drift.len());
            if found.verdict == Verdict::Uninstalled {
                return self.delete_secret().await;
            }
            return self.look_for_rivals().await;
        }
    }

    /// Plans the exchange of the token anew if it was given up, or could not be made. Gives whether one is on its
    /// way.
    async fn exchange_again(&self) -> Result<bool, Outcome> {
        let has_partner = self.meta().await?.partner_system_user_token.is_some();
        let Some(item) = exchange_again(&self.stored.install, has_partner, self.now()) else {
            return Ok(false);
        };
        let outbox = &self.worker.outbox;
        let pending = outbox.pending_all(&item.subject).await;
        let pending = pending.map_err(Outcome::from)?;
        if pending.iter().any(|entry| entry.kind == Kind::FbeExchangeToken) {
            return Ok(true);
        }
        outbox.add(&item).await.map_err(Outcome::from)
    }

    fn report(&self, verdict: Verdict, drift: usize) {
        metrics::counter!(telemetry::GRAPH_DRIFT).increment(drift as u64);
        let business = self.pseudonym();
        match verdict {
            Verdict::Drifted => {
                tracing::warn!(
                    fbe.business = business,
                    drift,
                    "Graph told an install differently; its answer is taken over"
                );
            }
            Verdict::UnknownAtGraph => {
                metrics::counter!(telemetry::FBE_UNKNOWN_AT_GRAPH).increment(1);
                tracing::warn!(
                    fbe.business = business,
                    "Graph does not know an install that nobody announced the removal of; it is kept"
                );
            }
            Verdict::Uninstalled => {
                tracing::info!(fbe.business = business, "Graph confirms a removal");
            }
            Verdict::Confirmed | Verdict::NotInstalled => {}
        }
    }

    /// A pixel belongs to one business.
    async fn look_for_rivals(&self) -> Result<(), Outcome> {
        let Some(pixel) = &self.stored.install.assets.pixel_id else {
            return Ok(());
        };
        let found = self.worker.installs.by_pixel(pixel).await;
        let found = found.map_err(Outcome::from)?;
        let rivals = pixel_rivals(self.id(), pixel, &found);
        if !rivals.is_empty() {
            metrics::counter!(telemetry::PIXEL_CONFLICTS).increment(1);
            tracing::warn!(
                fbe.business = self.pseudonym(),
                fbe.pixel = pixel,
                rivals = rivals.len(),
                "more than one business claims a pixel; it counts for the one that was granted it last"
            );
        }
        Ok(())
    }
}
