//! Tells the business what is on and off now, and why: a custom event on its Braze profile.

use serde_json::{Value, json};
use shared::clients::braze::TrackBody;
use shared::fbe::plan::Notice;
use shared::outbox::dispatch::Outcome;
use shared::store::outbox::Entry;

use super::{LEASE, Visit};
use crate::contacts;

/// The custom event.
const EVENT: &str = "fbe_install_updated";

impl Visit<'_> {
    pub(super) async fn notify(&self, entry: &Entry) -> Result<(), Outcome> {
        let Ok(notice) = serde_json::from_value::<Notice>(entry.payload()) else {
            return Err(Outcome::Dead {
                reason: "payload_unreadable".to_owned(),
            });
        };
        // Events are not idempotent: somebody may have sent this one since we read it.
        let claimed = self.worker.outbox.claim(entry, LEASE).await;
        if claimed.map_err(|error| Outcome::from(&error))?.is_none() {
            return Err(Outcome::Busy);
        }
        let body = TrackBody {
            attributes: Vec::new(),
            events: vec![event(self.id(), &notice)],
        };
        match self.worker.braze.track(&body).await {
            Ok(taken) if taken.errors.is_empty() => Ok(()),
            Ok(_) => Err(Outcome::Dead {
                reason: "braze_object_rejected".to_owned(),
            }),
            Err(error) => Err(contacts::outcome(&error)),
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
