//! What the worker of the relay works with.

use shared::clock::Clock;
use shared::outbox::Outbox;
use shared::whatsapp::settings::RelaySettings;
use shared::whatsapp::table::Conversations;

use super::external_system::ExternalSystemClient;
use super::wake::Queue;
use crate::braze::Braze;
use crate::settle::Settler;

/// The tables, the systems outside, and the settings.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) conversations: Conversations,
    pub(super) outbox: Outbox,
    pub(super) settler: Settler,
    pub(super) braze: Braze,
    pub(super) external_system: ExternalSystemClient,
    /// Wakes a worker when a burst is over; without it that is left to the schedule.
    pub(super) queue: Option<Queue>,
    pub(super) settings: RelaySettings,
    pub(super) clock: Clock,
}
