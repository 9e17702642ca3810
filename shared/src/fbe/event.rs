//! What Meta reports, in our own types.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::read::Granted;
use super::secret::Token;
use crate::personal::Personal;

/// When something happened, and which of two things at the same time counts as the later one. The digest
/// decides ties: any order will do, as long as it is always the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Time of the event.
    pub at: Timestamp,
    /// SHA-256 of the event's content, 64 hexadecimal digits.
    pub digest: String,
}

impl Stamp {
    /// Prefix of the event keys of what follows from this event: sorts by time, never repeats.
    #[must_use]
    pub fn key(&self) -> String {
        let millisecond = self.at.as_millisecond().max(0);
        let digest = self.digest.get(..16).unwrap_or(&self.digest);
        format!("{millisecond:014}-{digest}")
    }
}

/// A business installed, changed or removed the app.
#[derive(Debug, Clone)]
pub struct InstallEvent {
    /// The partner's own id of the business (`business_id`, elsewhere `fbe_external_business_id`).
    pub business_id: String,
    /// Business Manager, if said.
    pub business_manager_id: Option<String>,
    /// Time and tie-breaker.
    pub stamp: Stamp,
    /// `entry.uid`: Meta's id of the person or system user behind the event.
    pub uid: Option<Personal<String>>,
    /// `flow`, such as `COMMERCE`.
    pub flow: Option<String>,
    /// What happened.
    pub change: InstallChange,
}

/// What a business did.
#[derive(Debug, Clone)]
pub enum InstallChange {
    /// Installed or changed: whether it is the one or the other depends on what is stored.
    Granted {
        /// Everything that is granted now; what is not in here is no longer granted.
        granted: Box<Granted>,
        /// The token, if one came along.
        token: Option<Token>,
    },
    /// Removed.
    Uninstalled,
}

/// `business_integration_install`, `…_update`, `…_uninstall`: brings no token and names no business of ours.
#[serde_with::skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BusinessIntegrationEvent {
    /// What happened.
    pub change: IntegrationChange,
    /// Client's Business Manager: the only link to an install.
    pub business_manager_id: String,
    /// `tp_config_id`, only on install.
    pub configuration_id: Option<String>,
    /// `entry.id`
    pub app_id: Option<String>,
    /// Time and tie-breaker.
    pub stamp: Stamp,
}

impl BusinessIntegrationEvent {
    /// Where the event is recorded: next to the installs, under the Business Manager that it names.
    #[must_use]
    pub fn record_id(&self) -> String {
        integration_record_id(&self.business_manager_id)
    }
}

/// The record of a Business Manager's integration events.
#[must_use]
pub fn integration_record_id(business_manager_id: &str) -> String {
    format!("business_integration#{business_manager_id}")
}

/// The Business Manager of such a record; the reverse of [`integration_record_id`].
#[must_use]
pub fn business_manager_of(record_id: &str) -> Option<&str> {
    record_id.strip_prefix("business_integration#")
}

/// What a business did to an integration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntegrationChange {
    /// `business_integration_install`
    Install,
    /// `business_integration_update`
    Update,
    /// `business_integration_uninstall`
    Uninstall,
}
