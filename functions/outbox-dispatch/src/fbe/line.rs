//! Notices of one kind of a business leave in the order of the changes: one that fails holds up those after it.

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use shared::outbox::{Entry, Kind, Outbox, Reason};
use shared::store::StoreError;

use crate::effect::Task;
use crate::settle::Outcome;

/// Behind a notice that is due already.
const SHORTEST_WAIT: SignedDuration = SignedDuration::from_secs(5);

/// The notices that have not left yet.
#[derive(Default)]
pub(super) struct Line {
    /// When each is due, by its event key.
    due: BTreeMap<String, Timestamp>,
}

impl Line {
    /// Reads it, and adds to the tasks what stands in it for nothing but those before: all of it may leave with them.
    pub(super) async fn join<Effect>(
        outbox: &Outbox,
        kind: Kind,
        subject: &str,
        tasks: &mut Vec<Task<Effect>>,
        effect: impl Fn(&Entry) -> Option<Effect>,
    ) -> Result<Self, StoreError> {
        let given: HashSet<String> = tasks.iter().map(|task| task.entry.event_key.clone()).collect();
        let mut due = BTreeMap::new();
        let pending = outbox.pending_all(subject).await?.into_iter();
        for entry in pending.filter(|entry| entry.kind == kind) {
            due.insert(entry.event_key.clone(), entry.due_at.unwrap_or_default());
            let waits_for_older = entry.reason.as_deref() == Some(Reason::OlderNotice.as_str());
            if waits_for_older
                && !given.contains(&entry.event_key)
                && let Some(effect) = effect(&entry)
            {
                tasks.push(Task { entry, effect });
            }
        }
        tasks.sort_by(|a, b| a.entry.event_key.cmp(&b.entry.event_key));
        Ok(Self { due })
    }

    /// Whether none is before `entry`; else until when it waits.
    pub(super) fn turn_of(&self, entry: &Entry, now: Timestamp) -> Result<(), Outcome> {
        let older = self.due.range(..entry.event_key.clone());
        let Some(due) = older.map(|(_, due)| *due).max() else {
            return Ok(());
        };
        // Its own time has not come, so there is nothing to write.
        if entry.due_at.is_some_and(|due| now < due) {
            return Err(Outcome::Busy);
        }
        let wait = due.duration_since(now).max(SHORTEST_WAIT).try_into();
        Err(Outcome::waiting(Reason::OlderNotice, wait.unwrap_or_default()))
    }

    /// It has left.
    pub(super) fn left(&mut self, entry: &Entry) {
        self.due.remove(&entry.event_key);
    }
}
