//! Switches that make the fakes fail.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use testkit::braze::{self, FakeBraze, RateLimit};
use testkit::external_system::ExternalSystem;
use testkit::fault::Fault;
use testkit::graph;
use testkit::partner::FakePartner;

use super::flow::Party;
use crate::fakes::Fakes;

/// What goes wrong at a third party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It takes no more for now.
    Limited,
    /// It answers 503.
    Down,
    /// It answers after five seconds.
    Slow,
    /// It closes the connection.
    Cut,
    /// It knows the key or token no more.
    Key,
}

impl Failure {
    pub(crate) const ALL: [Self; 5] = [Self::Limited, Self::Down, Self::Slow, Self::Cut, Self::Key];

    /// In an address and a form.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Limited => "limited",
            Self::Down => "down",
            Self::Slow => "slow",
            Self::Cut => "cut",
            Self::Key => "key",
        }
    }

    /// On a switch.
    pub(crate) fn label(self, party: Party) -> &'static str {
        match (self, party) {
            (Self::Limited, Party::Graph) => "rate limit (613)",
            (Self::Limited, _) => "429",
            (Self::Down, _) => "503",
            (Self::Slow, _) => "slow (5 s)",
            (Self::Cut, _) => "cut off",
            (Self::Key, Party::Graph) => "token invalid",
            (Self::Key, _) => "401",
        }
    }

    fn fault(self, party: Party) -> Fault {
        match (self, party) {
            (Self::Limited, Party::Graph) => graph::faults::rate_limited(613),
            (Self::Limited, _) => braze::faults::rate_limited(RateLimit::RetryAfter(5)),
            (Self::Down, _) => braze::faults::unavailable(503),
            (Self::Slow, _) => Fault::Late(Duration::from_secs(5)),
            (Self::Cut, _) => Fault::CutBeforeProcessing,
            (Self::Key, Party::Graph) => graph::faults::token_invalid(463),
            (Self::Key, _) => braze::faults::unauthorized(),
        }
    }
}

impl Party {
    pub(crate) const ALL: [Self; 4] = [Self::Braze, Self::Graph, Self::ExternalSystem, Self::Partner];

    /// In an address and a form.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Braze => "braze",
            Self::Graph => "graph",
            Self::ExternalSystem => "external-system",
            Self::Partner => "partner",
        }
    }

    /// As people say it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Braze => "Braze",
            Self::Graph => "Graph",
            Self::ExternalSystem => "External system",
            Self::Partner => "Partner’s platform",
        }
    }
}

/// Which switches are on.
#[derive(Default)]
pub(crate) struct Faults(Mutex<BTreeMap<Party, Failure>>);

impl Faults {
    /// Those that are on.
    pub(crate) fn on(&self) -> BTreeMap<Party, Failure> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Switches one on, or off with `None`. `false`: this party is not played here.
    pub(crate) fn switch(&self, fakes: &Fakes, party: Party, failure: Option<Failure>) -> bool {
        let fault = failure.map(|failure| failure.fault(party));
        let played = match (party, fault) {
            (Party::Braze, Some(fault)) => fakes.braze.as_ref().map(|fake| fake.begin_outage(fault)),
            (Party::Braze, None) => fakes.braze.as_ref().map(FakeBraze::end_outage),
            (Party::Graph, Some(fault)) => fakes.graph.as_ref().map(|fake| fake.begin_outage(fault)),
            (Party::Graph, None) => fakes.graph.as_ref().map(|fake| fake.end_outage()),
            (Party::ExternalSystem, Some(fault)) => fakes
                .external_system
                .as_ref()
                .map(|fake| fake.begin_outage(fault)),
            (Party::ExternalSystem, None) => fakes.external_system.as_ref().map(ExternalSystem::end_outage),
            (Party::Partner, Some(fault)) => fakes.partner.as_ref().map(|fake| fake.begin_outage(fault)),
            (Party::Partner, None) => fakes.partner.as_ref().map(FakePartner::end_outage),
        };
        if played.is_none() {
            return false;
        }
        let mut on = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            Some(failure) => drop(on.insert(party, failure)),
            None => drop(on.remove(&party)),
        }
        true
    }

    /// Whether this party is played here.
    pub(crate) fn is_played(fakes: &Fakes, party: Party) -> bool {
        match party {
            Party::Braze => fakes.braze.is_some(),
            Party::Graph => fakes.graph.is_some(),
            Party::ExternalSystem => fakes.external_system.is_some(),
            Party::Partner => fakes.partner.is_some(),
        }
    }
}
