//! Many aliases through `/users/identify`, each with its own fate. A repetition changes nothing at Braze.

use shared::messenger::sync::Identify;
use tokio::time::Instant;

use super::bulk;
use super::track::User;
use super::{Braze, BrazeError, Endpoint};

/// Makes alias-only profiles known users. The result has one entry an alias, in the same order. For requests that are
/// not sent see [`bulk`].
pub async fn send(braze: &Braze, aliases: &[Identify], last_start: Instant) -> Vec<Result<(), BrazeError>> {
    let objects: Vec<User> = aliases
        .iter()
        .map(|alias| User {
            attributes: vec![serde_json::json!(alias)],
            events: Vec::new(),
        })
        .collect();
    let fates = bulk::send(braze, Endpoint::Identify, &objects, last_start).await;
    fates.into_iter().map(|fate| fate.attributes).collect()
}
