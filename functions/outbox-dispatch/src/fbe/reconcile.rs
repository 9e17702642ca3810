//! The webhook was a hint, Graph's answer is the truth.

use std::collections::BTreeSet;

use crate::settle::Outcome;
use shared::clients::graph::ErrorKind;
use shared::fbe::event::business_manager_of;
use shared::fbe::install::pixel_rivals;
use shared::fbe::plan::reconcile_item;
use shared::fbe::read::{self, Granted};
use shared::outbox::Entry;
use shared::outbox::Kind;
use shared::store::Rounds;
use shared::telemetry;

use super::access::Access;
use super::compare::{AtGraph, Verdict, compare};
use super::configuration::switched_off;
use super::token::exchange_due;
use super::{CONTENDED, Visit, contended};

impl Visit<'_> {
    pub(super) async fn reconcile(&mut self) -> Result<(), Outcome> {
        let mut rounds = Rounds::new(CONTENDED);
        loop {
            if !self.stored.install.is_installed() {
                // The deletion may have been cut off after the commit.
                return self.delete_secret().await;
            }
            let is_on_its_way = self.exchange_due().await?;
            if self.stored.install.token.is_none() && !is_on_its_way {
                // There is nothing to ask Graph with, and waiting changes nothing.
                self.has_no_token();
                return Ok(());
            }
            let mut access = self.access().await?;
            let graph = &self.worker.graph;
            let answer = loop {
                match graph.fbe_installs(access.credentials(), self.id()).await {
                    Ok(answer) => break answer,
                    Err(error) if self.app_changed(&mut access, &error).await => {}
                    Err(error) => return Err(self.graph_failed(error).await),
                }
            };
            // After a conflict Graph is asked again: its answer may be older than the webhook that won.
            if !self.token_was_taken().await? {
                rounds.next().await.map_err(|error| contended(&error))?;
                continue;
            }
            let granted = read::installs(&answer);
            let switched_off = match &granted {
                Some(granted) => self.switched_off(granted, &mut access).await?,
                None => None,
            };
            let graph = AtGraph {
                granted: granted.as_ref(),
                switched_off,
            };
            let configured = self.worker.settings.fbe.configured();
            let found = compare(&self.stored.install, graph, configured, self.now());
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

    /// The features that Meta's configuration says are off; `None` if it may not be read.
    async fn switched_off(
        &mut self,
        granted: &Granted,
        access: &mut Access,
    ) -> Result<Option<BTreeSet<String>>, Outcome> {
        let graph = &self.worker.graph;
        match graph.fbe_business(access.credentials(), self.id()).await {
            Ok(answer) => Ok(answer.as_object().map(|all| switched_off(&granted.features, all))),
            // What is installed was read, and must not wait for this.
            Err(error) if matches!(error.kind, ErrorKind::Permission | ErrorKind::Permanent { .. }) => {
                tracing::warn!(%error, fbe.business = self.pseudonym(), "the configuration of a business cannot be read");
                Ok(None)
            }
            Err(error) => Err(self.graph_failed(error).await),
        }
    }

    /// Compares every business of a Business Manager, of which an integration event has come.
    pub(super) async fn reconcile_manager(&self, entry: &Entry) -> Result<(), Outcome> {
        let Some(manager) = business_manager_of(self.id()) else {
            return Ok(());
        };
        let installs = self.worker.installs.by_manager(manager).await?;
        for business in &installs {
            // The key of the event: done again, it adds nothing.
            let item = reconcile_item(business, &entry.event_key, entry.created_at, None);
            self.worker.outbox.add(&item).await?;
        }
        tracing::info!(
            businesses = installs.len(),
            "an integration event has every business of its manager compared"
        );
        Ok(())
    }

    /// Plans the exchange of the token that is due. Gives whether one is on its way.
    async fn exchange_due(&self) -> Result<bool, Outcome> {
        let has_partner = self.worker.meta.get().await?.partner_system_user_token.is_some();
        let Some(item) = exchange_due(&self.stored.install, has_partner, self.now()) else {
            return Ok(false);
        };
        let outbox = &self.worker.outbox;
        let pending = outbox.pending_all(&item.subject).await?;
        if pending.iter().any(|entry| entry.kind == Kind::FbeExchangeToken) {
            return Ok(true);
        }
        Ok(outbox.add(&item).await?)
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
            Verdict::OwnerChanged => self.owner_changed(),
            Verdict::Confirmed | Verdict::NotInstalled => {}
        }
    }

    pub(super) fn owner_changed(&self) {
        metrics::counter!(telemetry::FBE_MANAGER_CHANGES).increment(1);
        tracing::warn!(
            fbe.business = self.pseudonym(),
            "Graph does not know the owner's install any more: the claim of another Business Manager is in effect"
        );
    }

    /// A pixel belongs to one business.
    async fn look_for_rivals(&self) -> Result<(), Outcome> {
        let Some(pixel) = &self.stored.install.assets.pixel_id else {
            return Ok(());
        };
        let found = self.worker.installs.by_pixel(pixel).await?;
        let rivals = pixel_rivals(self.id(), pixel, &found);
        if !rivals.is_empty() {
            metrics::counter!(telemetry::PIXEL_CONFLICTS).increment(1);
            tracing::warn!(
                fbe.business = self.pseudonym(),
                fbe.pixel = pixel,
                rivals = rivals.len(),
                "more than one business has a pixel; it counts for the one that was granted it last"
            );
        }
        Ok(())
    }
}
