//! Notifies the business of what is on and off now, and why: a custom event on its Braze profile.

use crate::braze::Objects;
use crate::settle::{Outcome, claim};
use serde_json::{Value, json};
use shared::fbe::plan::Notice;
use shared::outbox::Entry;

use super::{LEASE, Visit};

/// The custom event.
const EVENT: &str = "fbe_install_updated";

impl Visit<'_> {
    pub(super) async fn notify(&mut self, entry: &Entry, notice: &Notice) -> Result<(), Outcome> {
        self.line.turn_of(entry, self.now())?;
        // Events are not idempotent: another run may have sent this one since we read it.
        claim(&self.worker.outbox, entry, LEASE).await?;
        let objects = Objects {
            events: vec![event(self.id(), notice)].into(),
            ..Objects::default()
        };
        match self.worker.braze.track(&objects).await {
            Ok(taken) => match taken.refusal() {
                None => {
                    self.line.left(entry);
                    Ok(())
                }
                Some(reason) => Err(Outcome::Dead { reason }),
            },
            Err(error) => Err(Outcome::from(&error)),
        }
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
