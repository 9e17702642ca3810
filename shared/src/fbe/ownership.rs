//! Whose a business is, when more than one Business Manager has the app installed under its external business id.
//!
//! That id travels through the client's browser, so another business can present it. The business therefore belongs
//! to the Business Manager that installed the app first, by the events' own times, and has not removed it since. An
//! install under another one is kept beside it as a claim, and takes effect once the owner is gone. What is kept of
//! each are facts that only grow, so the order of arrival changes nothing.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::event::{InstallEvent, Stamp};
use super::install::{Install, Status};
use super::manager::{ManagerGrant, Removal, Said, TokenState};
use super::read::Granted;

/// How many Business Managers are remembered; of more, the latest claims are dropped.
const MAX_MANAGERS: usize = 5;
/// How many Business Managers' removals are remembered.
const MAX_REMOVALS: usize = 8;
/// How many times of grants are remembered for each Business Manager: a removal that arrives late ends the earlier ones.
const MAX_TIMES: usize = 32;
/// What claims grant takes this much of the stored item together. A claim that does not fit is kept without it, and
/// Graph is asked for it when the claim takes effect.
const MAX_CLAIM_BYTES: usize = 100_000;

impl Install {
    /// The Business Manager that the business belongs to, if its webhooks named it.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.managers.first().and_then(ManagerGrant::id)
    }

    /// Installs under other Business Managers, which are not in effect; the earliest first.
    #[must_use]
    pub fn claims(&self) -> &[ManagerGrant] {
        let claims = self.managers.get(1..).unwrap_or_default();
        let named = claims.iter().take_while(|claim| claim.id().is_some()).count();
        claims.get(..named).unwrap_or_default()
    }

    /// Whether another Business Manager than the owner has the app installed.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        !self.claims().is_empty()
    }

    /// Whether this Business Manager claims the business. One without a name never does.
    #[must_use]
    pub fn is_claimed_by(&self, business_manager_id: Option<&str>) -> bool {
        self.claims()
            .iter()
            .any(|claim| claim.id() == business_manager_id)
    }

    /// Whether the business's secret has no token to hold, neither the owner's nor a claim's.
    #[must_use]
    pub fn keeps_no_token(&self) -> bool {
        self.token.is_none() && self.managers.iter().all(|manager| manager.token.is_none())
    }

    /// The install with its owner as an entry of `managers`, which earlier versions did not store.
    #[must_use]
    pub fn with_owner(mut self) -> Self {
        self.add_owner();
        self
    }

    fn add_owner(&mut self) {
        if let (true, true, Some(newest)) = (self.managers.is_empty(), self.is_installed(), &self.granted) {
            let mut times = BTreeSet::from([newest.at]);
            times.extend(self.installed_at.filter(|at| *at < newest.at));
            self.managers.push(ManagerGrant {
                business_manager_id: self.assets.business_manager_id.clone(),
                times,
                newest: newest.clone(),
                said: None,
                token: None,
            });
        }
    }

    /// Takes a grant over, and the token that came with it. [`Self::settle`] then says what it means.
    pub fn take_grant(&mut self, event: &InstallEvent, granted: &Granted, token: Option<TokenState>) {
        self.gather_token();
        let id = event.business_manager_id.as_deref();
        let index = self.managers.iter().position(|manager| manager.id() == id);
        let index = index.unwrap_or_else(|| {
            self.managers.push(ManagerGrant::new(event));
            self.managers.len() - 1
        });
        let Some(manager) = self.managers.get_mut(index) else {
            return;
        };
        let is_first = manager.times.is_empty();
        manager.times.insert(event.stamp.at);
        if is_first || manager.newest < event.stamp {
            manager.newest = event.stamp.clone();
            manager.said = Some(Box::new(Said {
                granted: granted.clone(),
                flow: event.flow.clone(),
                uid: event.uid.clone(),
            }));
        }
        if let Some(token) = token {
            manager.take_token(token);
        }
    }

    /// Remembers a removal, unless a newer one of the same Business Manager is remembered.
    pub fn take_removal(&mut self, removal: Removal) {
        let same = |known: &&mut Removal| known.business_manager_id == removal.business_manager_id;
        if let Some(known) = self.removals.iter_mut().find(same) {
            known.at = known.at.max(removal.at);
        } else {
            self.removals.push(removal);
        }
        self.removals
            .sort_by(|a, b| (a.at, &a.business_manager_id).cmp(&(b.at, &b.business_manager_id)));
        let surplus = self.removals.len().saturating_sub(MAX_REMOVALS);
        self.removals.drain(..surplus);
    }

    /// The end of the owner's install as known from elsewhere than its webhook, so that the next claim takes effect.
    /// `false` if there is no claim.
    pub fn end_owner(&mut self, now: Timestamp) -> bool {
        let Some(claim) = self
            .claims()
            .first()
            .and_then(|claim| claim.business_manager_id.clone())
        else {
            return false;
        };
        self.accept(&claim, now)
    }

    /// Ends the installs of all Business Managers that come before this one, so that its claim takes effect. `false`
    /// if it claims nothing.
    pub fn accept(&mut self, business_manager_id: &str, now: Timestamp) -> bool {
        let Some(claim) = self
            .claims()
            .iter()
            .position(|claim| claim.id() == Some(business_manager_id))
        else {
            return false;
        };
        let earlier: Vec<String> = self
            .managers
            .iter()
            .take(claim + 1)
            .filter_map(|one| one.business_manager_id.clone())
            .collect();
        // At equal times the grant would count, and Meta's clock may be ahead.
        let at = self.after_all(now);
        for id in earlier {
            self.take_removal(Removal {
                at,
                business_manager_id: Some(id),
            });
        }
        self.settle();
        true
    }

    /// Graph has named the Business Manager of the install.
    pub fn name_owner(&mut self, business_manager_id: Option<&str>) {
        let Some(id) = business_manager_id.filter(|id| self.owner() != Some(id)) else {
            return;
        };
        let named = Some(id.to_owned());
        if let Some(owner) = self.managers.first_mut() {
            owner.business_manager_id.clone_from(&named);
        }
        if let Some(token) = &mut self.token {
            token.business_manager_id = named;
        }
    }

    /// Now, or just after the newest grant if that is later.
    #[must_use]
    pub fn after_all(&self, now: Timestamp) -> Timestamp {
        let managers = self.managers.iter().map(|manager| &manager.newest);
        let newest = managers.chain(&self.granted).map(|stamp| stamp.at).max();
        newest.map_or(now, |newest| now.max(newest + SignedDuration::from_millis(1)))
    }

    /// Works out from the facts whose the business is, what is granted, which token counts, and the status.
    pub fn settle(&mut self) {
        let last_owner = self.assets.business_manager_id.clone();
        self.gather_token();
        let removals = &self.removals;
        let ended: Vec<ManagerGrant> = self
            .managers
            .extract_if(.., |manager| !manager.survives(removals))
            .collect();
        self.managers.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let Some(newest) = self.in_force().map(|manager| manager.newest.clone()) else {
            for manager in ended {
                // Equal is its own: what stands there may have been filled in from another's.
                if self.granted.as_ref() <= Some(&manager.newest) {
                    self.granted = Some(manager.newest);
                    self.assets.business_manager_id = manager.business_manager_id;
                }
            }
            return self.remove();
        };
        if !self.is_installed() || self.granted.as_ref() != Some(&newest) {
            self.put_in_force(&newest);
        }
        let owner = self.owner().map(str::to_owned);
        let is_unnamed = |manager: &ManagerGrant| manager.business_manager_id.is_none();
        if self.in_force().is_some_and(is_unnamed) {
            self.assets.business_manager_id.clone_from(&owner);
        }
        if self.assets.business_manager_id != last_owner {
            self.switched_off.clear();
        }
        // The owner's own, or one that came with no Business Manager named.
        let candidates = self
            .managers
            .iter_mut()
            .filter(|one| one.business_manager_id == owner || is_unnamed(one));
        let newest =
            candidates.max_by_key(|one| one.token.as_ref().map(|token| (token.at, token.source.clone())));
        self.token = newest.and_then(|manager| manager.token.take());
        let is_refused = self
            .token
            .as_ref()
            .is_some_and(|token| token.invalid_since.is_some());
        self.status = if is_refused {
            Status::TokenInvalid
        } else {
            Status::Active
        };
        self.drop_surplus();
    }

    /// Everything off. The Business Manager stays: it says whose removal this was.
    pub fn remove(&mut self) {
        let business_manager_id = self.assets.business_manager_id.take();
        self.set_grant(Granted::default());
        self.assets.business_manager_id = business_manager_id;
        self.status = Status::Uninstalled;
        self.managers.clear();
        self.switched_off.clear();
        (self.token, self.said, self.flow, self.uid) = (None, None, None, None);
        self.unknown_at_graph_since = None;
    }

    /// Puts the token in force beside the others, to be compared with them.
    fn gather_token(&mut self) {
        self.add_owner();
        let Some(token) = self.token.take() else { return };
        let own = self
            .managers
            .iter()
            .position(|manager| manager.business_manager_id == token.business_manager_id);
        if let Some(manager) = self.managers.get_mut(own.unwrap_or_default()) {
            manager.token = Some(token);
        }
    }

    /// The grant that counts: the newest of the owner's and of those that named no Business Manager.
    fn in_force(&self) -> Option<&ManagerGrant> {
        let owner = self.managers.first();
        let unnamed = self.managers.last().filter(|last| last.id().is_none());
        owner
            .into_iter()
            .chain(unnamed)
            .max_by(|a, b| a.newest.cmp(&b.newest))
    }

    /// Exchanges the content of the grant in force for that of `newest`.
    fn put_in_force(&mut self, newest: &Stamp) {
        let outgoing = Said {
            granted: self.said.take().map_or_else(|| self.grant(), |said| *said),
            flow: self.flow.take(),
            uid: self.uid.take(),
        };
        let before = self
            .granted
            .replace(newest.clone())
            .filter(|_| self.is_installed());
        let mut incoming = Said::default();
        for manager in &mut self.managers {
            if manager.newest == *newest {
                incoming = manager.said.take().map(|said| *said).unwrap_or_default();
            } else if before.as_ref() == Some(&manager.newest) {
                let mut said = outgoing.clone();
                // Not what was filled in while it was in force.
                let named = &manager.business_manager_id;
                said.granted.assets.business_manager_id.clone_from(named);
                manager.said = Some(Box::new(said));
            }
        }
        self.set_grant(incoming.granted);
        (self.flow, self.uid) = (incoming.flow, incoming.uid);
        if self.assets.business_manager_id.is_none() {
            self.assets.business_manager_id = self.owner().map(str::to_owned);
        }
        self.unknown_at_graph_since = None;
    }

    /// Keeps the record within what an item of the table holds.
    fn drop_surplus(&mut self) {
        while self.claims().len() >= MAX_MANAGERS {
            let last = self.claims().len();
            self.managers.remove(last);
        }
        let mut left = MAX_CLAIM_BYTES;
        for manager in &mut self.managers {
            while manager.times.len() > MAX_TIMES {
                // The first says since when, and the later ones count if a late removal ends it.
                let Some(second) = manager.times.iter().nth(1).copied() else {
                    break;
                };
                manager.times.remove(&second);
            }
            let Some(said) = &manager.said else { continue };
            let bytes = serde_json::to_vec(said).map_or(usize::MAX, |json| json.len());
            match left.checked_sub(bytes) {
                Some(rest) => left = rest,
                None => manager.said = None,
            }
        }
    }
}
