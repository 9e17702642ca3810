//! Tells the business what is on and off now, and why: a custom event on its Braze profile.

use crate::braze::Objects;
use crate::settle::Outcome;
use jiff::SignedDuration;
use serde_json::{Value, json};
use shared::fbe::plan::Notice;
use shared::outbox::Kind;
use shared::outbox::{Entry, Reason};
use shared::store::Claim;

use super::{LEASE, Visit};

/// Behind a notice that is due already.
const SHORTEST_WAIT: SignedDuration = SignedDuration::from_secs(5);

/// The custom event.
const EVENT: &str = "fbe_install_updated";

impl Visit<'_> {
    pub(super) async fn notify(&mut self, entry: &Entry, notice: &Notice) -> Result<(), Outcome> {
        self.wait_for_older(entry).await?;
        // Events are not idempotent: somebody may have sent this one since we read it.
        let outbox = &self.worker.outbox;
        let claimed = outbox.claim(&entry.subject, &entry.event_key, LEASE).await;
        if !matches!(claimed.map_err(Outcome::from)?, Claim::Leased(..)) {
            return Err(Outcome::Busy);
        }
        let objects = Objects {
            events: vec![event(self.id(), notice)].into(),
            ..Objects::default()
        };
        match self.worker.braze.track(&objects).await {
            Ok(taken) => match taken.refusal() {
                None => {
                    self.told.push(entry.event_key.clone());
                    Ok(())
                }
                Some(reason) => Err(Outcome::Dead { reason }),
            },
            Err(error) => Err(Outcome::from(&error)),
        }
    }

    /// Notices leave in the order of what they tell: one that failed holds up those after it.
    async fn wait_for_older(&self, entry: &Entry) -> Result<(), Outcome> {
        let pending = self.worker.outbox.pending_all(&entry.subject).await;
        let pending = pending.map_err(Outcome::from)?;
        let older = pending.iter().filter(|other| {
            other.kind == Kind::FbeNotify
                && other.event_key < entry.event_key
                // What this visit has sent is marked as done only at its end.
                && !self.told.contains(&other.event_key)
        });
        let Some(due) = older.map(|older| older.due().unwrap_or_default()).max() else {
            return Ok(());
        };
        let wait = due.duration_since(self.now()).max(SHORTEST_WAIT);
        Err(Outcome::Waiting {
            reason: Reason::OlderNotice.into(),
            wait: wait.try_into().unwrap_or_default(),
        })
    }
}

fn event(business_id: &str, notice: &Notice) -> Value {
    json!({
        "external_id": business_id,
        "name": EVENT,
        "time": notice.at,
        "properties": {
            "change": notice.change,
            "enabled": notice.enabled,
            "disabled": notice.disabled,
        },
        // A business that Braze does not know yet gets its profile.
        "_update_existing_only": false,
    })
}
