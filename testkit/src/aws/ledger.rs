//! What was asked of the embedded AWS, and what is to go wrong with it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::units::Units;
use crate::template::Power;

/// Something that goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Answered 503, not applied.
    ServiceUnavailable,
    /// Answered as throttled, not applied.
    Throttle,
    /// Refused as in conflict with another transaction, not applied.
    Conflict,
    /// A batch is taken and nothing of it done: all of it is given back as unprocessed.
    Unprocessed,
    /// Never answered, not applied.
    Timeout,
    /// Applied, but the answer is cut off.
    AnswerLost,
}

/// Requests by operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    by_operation: BTreeMap<String, u64>,
}

impl Calls {
    /// All requests.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_operation.values().sum()
    }

    /// The requests of one operation, such as `UpdateItem`.
    #[must_use]
    pub fn of(&self, operation: &str) -> u64 {
        self.by_operation.get(operation).copied().unwrap_or_default()
    }

    /// Every operation that was asked for, with the number of its requests.
    #[must_use]
    pub fn by_operation(&self) -> &BTreeMap<String, u64> {
        &self.by_operation
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Service {
    DynamoDb,
    Streams,
    SecretsManager,
    Sqs,
}

pub(super) type Hook = Box<dyn FnOnce(Value) -> BoxFuture<'static, ()> + Send>;

#[derive(Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: HashMap<Service, Calls>,
    units: Units,
    dynamodb_time: Duration,
    faults: HashMap<String, VecDeque<Fault>>,
    hooks: HashMap<String, VecDeque<Hook>>,
    powers: HashMap<String, BTreeSet<Power>>,
}

impl Ledger {
    /// Counts a request and tells what is to happen to it.
    pub(super) fn enter(&self, service: Service, operation: &str) -> (Option<Hook>, Option<Fault>) {
        let mut state = self.state();
        let calls = state.calls.entry(service).or_default();
        *calls.by_operation.entry(operation.to_owned()).or_default() += 1;
        let hook = state.hooks.get_mut(operation).and_then(VecDeque::pop_front);
        let mut fault = state.faults.get_mut(operation).and_then(VecDeque::pop_front);
        if fault.is_none() {
            fault = state.faults.get_mut("*").and_then(VecDeque::pop_front);
        }
        (hook, fault)
    }

    /// Notes what a caller's role has to allow.
    pub(super) fn note_powers(&self, caller: &str, powers: BTreeSet<Power>) {
        let mut state = self.state();
        state.powers.entry(caller.to_owned()).or_default().extend(powers);
    }

    pub(super) fn powers_of(&self, caller: &str) -> BTreeSet<Power> {
        self.state().powers.get(caller).cloned().unwrap_or_default()
    }

    /// Notes what a request to DynamoDB is billed by.
    pub(super) fn note_units(&self, units: Units) {
        self.state().units.add(units);
    }

    pub(super) fn units(&self) -> Units {
        self.state().units
    }

    /// Notes how long a request to DynamoDB took.
    pub(super) fn note_dynamodb_time(&self, took: Duration) {
        self.state().dynamodb_time += took;
    }

    pub(super) fn dynamodb_time(&self) -> Duration {
        self.state().dynamodb_time
    }

    pub(super) fn calls(&self, service: Service) -> Calls {
        self.state().calls.get(&service).cloned().unwrap_or_default()
    }

    pub(super) fn reset_calls(&self) {
        let mut state = self.state();
        state.calls.clear();
        state.units = Units::default();
    }

    pub(super) fn fail_next(&self, operation: &str, times: usize, fault: Fault) {
        let mut state = self.state();
        let faults = state.faults.entry(operation.to_owned()).or_default();
        faults.extend(std::iter::repeat_n(fault, times));
    }

    pub(super) fn clear_faults(&self) -> usize {
        let mut state = self.state();
        state.hooks.clear();
        let faults = std::mem::take(&mut state.faults);
        faults.values().map(VecDeque::len).sum()
    }

    pub(super) fn before_next(&self, operation: &str, hook: Hook) {
        self.state()
            .hooks
            .entry(operation.to_owned())
            .or_default()
            .push_back(hook);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock in a half-written state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
