//! API-triggered campaigns, and the messages that people got of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::profile::Identifier;

/// An API-triggered campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    pub(super) id: String,
    pub(super) live: bool,
    pub(super) re_eligible: bool,
}

impl Campaign {
    /// A live campaign that people can get again and again.
    #[must_use]
    pub fn live(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            live: true,
            re_eligible: true,
        }
    }

    /// The campaign after somebody stopped it: accepts everything and sends nothing.
    #[must_use]
    pub fn stopped(mut self) -> Self {
        self.live = false;
        self
    }

    /// The campaign with Braze's default setting: each person gets it once, ever.
    #[must_use]
    pub fn once_per_person(mut self) -> Self {
        self.re_eligible = false;
        self
    }
}

/// A message that a person got.
#[derive(Debug, Clone, PartialEq)]
pub struct SentMessage {
    /// The request's `dispatch_id`.
    pub dispatch_id: String,
    /// The campaign.
    pub campaign_id: String,
    /// The recipient as the request named it.
    pub recipient: Identifier,
    /// The profile that it is.
    pub braze_id: String,
    /// The request's properties with the recipient's own on top.
    pub trigger_properties: Map<String, Value>,
}

/// The campaigns that exist, and who has had them.
pub(super) struct Campaigns {
    known: Option<BTreeMap<String, Campaign>>,
    pub(super) had: BTreeSet<(String, u64)>,
    dispatches: u64,
}

impl Campaigns {
    /// `None`: any id is a live campaign.
    pub(super) fn new(known: Option<Vec<Campaign>>) -> Self {
        let by_id = |campaigns: Vec<Campaign>| {
            campaigns
                .into_iter()
                .map(|campaign| (campaign.id.clone(), campaign))
                .collect()
        };
        Self {
            known: known.map(by_id),
            had: BTreeSet::new(),
            dispatches: 0,
        }
    }

    pub(super) fn set(&mut self, campaign: Campaign) {
        self.known
            .get_or_insert_default()
            .insert(campaign.id.clone(), campaign);
    }

    pub(super) fn find(&self, id: &str) -> Option<Campaign> {
        match &self.known {
            None => Some(Campaign::live(id)),
            Some(known) => known.get(id).cloned(),
        }
    }

    pub(super) fn dispatch_id(&mut self) -> String {
        self.dispatches += 1;
        format!("{:032x}", self.dispatches)
    }
}
