//! Whether a refusal is about the content or about the caller.
//!
//! Braze names the objects at fault, mostly. A 400 that names none may be about one object of the request, or about
//! the sender: a wrong path, a proxy that answers in Braze's place, a setting of the account. The second kind
//! meets everything alike, so what tells them apart is whether Braze takes something else. An object is given up only
//! if it was refused alone and something else was taken after its first refusal. Refusals of two that have nothing in
//! common, with nothing taken in between, are a fault of the configuration: nothing is given up, and Braze is probed
//! with one object every [`PROBE`] until it takes one. Of objects that are named it takes [`MOST_NAMED`].
//!
//! Kept for each endpoint and for the life of the process; other processes find out for themselves, with few requests.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::BrazeError;

/// How often Braze is asked while it refuses everything.
const PROBE: SignedDuration = SignedDuration::from_secs(20);

/// Profiles in a row of which objects may be named and nothing is taken. What is named is mostly at fault itself; a setting
/// that makes them all bad, such as the name of an attribute, is named with each of them.
const MOST_NAMED: usize = 10;

/// What Braze's refusal of everything is called.
const EVERYTHING: &str = "braze_refuses_everything";

/// Suspects kept in mind. Beyond, the oldest evidence is worth less than the memory.
const MOST_SUSPECTS: usize = 10_000;

/// What an endpoint has taken and refused.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Requests taken so far.
    taken: u64,
    /// Who was refused alone, with the requests that had been taken by then.
    suspects: HashMap<u64, u64>,
    /// Of whom an object was named since something was last taken.
    named: HashSet<u64>,
    /// Braze refuses everything: the time of the next probe, and the number of probes so far.
    everything: Option<(Timestamp, usize)>,
    /// Braze has asked to be left alone until this time, and how the request failed.
    wait: Option<(Timestamp, String)>,
}

/// Which requests may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permit {
    Any,
    /// One with a single object, and another object than last time: the first of all may be a bad one.
    Probe(usize),
}

impl Refusals {
    /// Whether Braze may be asked now.
    pub(super) fn permit(&self, now: Timestamp) -> Result<Permit, BrazeError> {
        let mut state = self.state();
        if let Some((until, reason)) = state.wait.as_ref().filter(|(until, _)| *until > now) {
            return Err(BrazeError::Transient {
                reason: reason.clone(),
                wait: until.duration_since(now).try_into().ok(),
            });
        }
        match &mut state.everything {
            None => Ok(Permit::Any),
            Some((next, _)) if now < *next => Err(everything()),
            Some((next, probes)) => {
                *next = now + PROBE;
                *probes += 1;
                Ok(Permit::Probe(*probes))
            }
        }
    }

    /// Notes how a request failed: Braze's wait holds for everything that the limit covers, not for one item.
    pub(super) fn failed(&self, error: &BrazeError, now: Timestamp) {
        if let BrazeError::Transient {
            reason,
            wait: Some(wait),
        }
        | BrazeError::Configuration {
            reason,
            wait: Some(wait),
        } = error
            && let Ok(until) = now.checked_add(*wait)
        {
            let mut state = self.state();
            if state.wait.as_ref().is_none_or(|(before, _)| *before < until) {
                state.wait = Some((until, reason.clone()));
            }
        }
    }

    /// Whether everything was refused so far.
    pub(super) fn is_everything(&self) -> bool {
        self.state().everything.is_some()
    }

    /// Requests taken so far: the mark to hold a later refusal against.
    pub(super) fn taken(&self) -> u64 {
        self.state().taken
    }

    /// Notes that a request with `objects` was taken.
    pub(super) fn took<'a>(&self, objects: impl IntoIterator<Item = &'a Value>) {
        let mut state = self.state();
        state.taken += 1;
        state.named.clear();
        if state.everything.take().is_some() {
            // They were refused with everything else.
            state.suspects.clear();
        } else if !state.suspects.is_empty() {
            for object in objects {
                state.suspects.remove(&identity(object));
            }
        }
    }

    /// Notes that both halves of a request were refused that itself was refused at the mark `since`. An error if
    /// nothing was taken since: then it is not about their content.
    pub(super) fn halves_refused(&self, since: u64, now: Timestamp) -> Result<(), BrazeError> {
        let mut state = self.state();
        if state.taken > since {
            return Ok(());
        }
        Err(state.declare(now))
    }

    /// Notes that Braze named `objects`, and took nothing else of their request. An error if it does so with everything.
    pub(super) fn refused_by_name<'a>(
        &self,
        objects: impl IntoIterator<Item = &'a Value>,
        now: Timestamp,
    ) -> Result<(), BrazeError> {
        let mut state = self.state();
        if state.everything.is_none() {
            state.named.extend(objects.into_iter().map(identity));
            if state.named.len() < MOST_NAMED {
                return Ok(());
            }
        }
        Err(state.declare(now))
    }

    /// What the refusal of `object` alone means. `since` is the mark of the first refusal of a request that it was in.
    pub(super) fn refused_alone(
        &self,
        object: &Value,
        since: Option<u64>,
        refusal: BrazeError,
        now: Timestamp,
    ) -> BrazeError {
        let who = identity(object);
        let mut state = self.state();
        let first = state.suspects.get(&who).copied();
        if since.into_iter().chain(first).any(|mark| state.taken > mark) {
            state.suspects.remove(&who);
            return refusal;
        }
        let taken = state.taken;
        if state.suspects.len() >= MOST_SUSPECTS {
            state.suspects.clear();
        }
        let others = state
            .suspects
            .iter()
            .any(|(other, mark)| *other != who && *mark == taken);
        state.suspects.insert(who, taken);
        if others || state.everything.is_some() {
            return state.declare(now);
        }
        BrazeError::Transient {
            reason: refusal.to_string(),
            wait: None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn declare(&mut self, now: Timestamp) -> BrazeError {
        if self.everything.is_none() {
            tracing::error!("Braze refuses everything alike; it is asked only now and then");
            self.everything = Some((now + PROBE, 0));
        }
        everything()
    }
}

fn everything() -> BrazeError {
    BrazeError::Configuration {
        reason: EVERYTHING.to_owned(),
        wait: None,
    }
}

/// Whose object it is: two objects of one profile are no two witnesses.
fn identity(object: &Value) -> u64 {
    let mut hash = DefaultHasher::new();
    for name in ["external_id", "user_alias"] {
        object.get(name).map(Value::to_string).hash(&mut hash);
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn refusal() -> BrazeError {
        BrazeError::Rejected {
            reason: "braze_400".to_owned(),
            errors: Vec::new(),
        }
    }

    fn alone(refusals: &Refusals, who: &str, second: i64) -> BrazeError {
        refusals.refused_alone(&json!({"external_id": who}), None, refusal(), at(second))
    }

    #[test]
    fn who_is_refused_while_others_are_taken_is_at_fault() {
        let refusals = Refusals::default();
        for _ in 0..3 {
            let undecided = alone(&refusals, "ana", 0);
            assert!(matches!(undecided, BrazeError::Transient { .. }), "{undecided:?}");
        }
        refusals.took(&[json!({"external_id": "bo"})]);
        assert_eq!(alone(&refusals, "ana", 60), refusal());
        // What was taken before says nothing of what is refused now.
        let undecided = alone(&refusals, "bo", 61);
        assert!(matches!(undecided, BrazeError::Transient { .. }), "{undecided:?}");
    }

    #[test]
    fn two_with_nothing_in_common_are_no_two_bad_ones() {
        let refusals = Refusals::default();
        alone(&refusals, "ana", 0);
        assert_eq!(alone(&refusals, "bo", 1), everything());
        assert_eq!(refusals.permit(at(2)), Err(everything()));
        assert_eq!(refusals.permit(at(21)), Ok(Permit::Probe(1)));
        assert_eq!(refusals.permit(at(22)), Err(everything()));
        assert_eq!(refusals.permit(at(41)), Ok(Permit::Probe(2)));
        assert_eq!(alone(&refusals, "cy", 41), everything());
        refusals.took(&[]);
        assert_eq!(refusals.permit(at(42)), Ok(Permit::Any));
        let undecided = alone(&refusals, "ana", 43);
        assert!(matches!(undecided, BrazeError::Transient { .. }), "{undecided:?}");
    }

    #[test]
    fn who_was_taken_since_is_no_suspect_any_more() {
        let refusals = Refusals::default();
        alone(&refusals, "ana", 0);
        refusals.took(&[json!({"external_id": "ana"})]);
        refusals.took(&[json!({"external_id": "bo"})]);
        let undecided = alone(&refusals, "ana", 1);
        assert!(matches!(undecided, BrazeError::Transient { .. }), "{undecided:?}");
    }

    #[test]
    fn two_objects_of_one_profile_are_one() {
        let refusals = Refusals::default();
        for value in ["1", "2"] {
            let object = json!({"external_id": "ana", "messenger_id": value});
            let verdict = refusals.refused_alone(&object, None, refusal(), at(0));
            assert!(matches!(verdict, BrazeError::Transient { .. }), "{verdict:?}");
        }
    }

    #[test]
    fn halves_that_are_both_refused_are_about_the_caller_unless_something_was_taken() {
        let refusals = Refusals::default();
        let since = refusals.taken();
        refusals.took(&[]);
        assert_eq!(refusals.halves_refused(since, at(0)), Ok(()));
        assert_eq!(
            refusals.halves_refused(refusals.taken(), at(0)),
            Err(everything())
        );
        assert!(refusals.is_everything());
    }
}
