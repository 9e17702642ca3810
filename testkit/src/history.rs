//! What the fakes have in common behind their handles: the model under a lock, and the requests they remember.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// The model, its lock, and a bell that rings after each request.
pub(crate) struct Shared<Model> {
    model: Mutex<Model>,
    changed: watch::Sender<()>,
}

impl<Model> Shared<Model> {
    pub(crate) fn new(model: Model) -> Self {
        Self {
            model: Mutex::new(model),
            changed: watch::Sender::new(()),
        }
    }

    /// A panic while the lock was held is already failing its test; the queries of others still answer.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ring(&self) {
        self.changed.send_replace(());
    }

    /// Waits until `condition` holds, looking after every request. Says whether it did within `timeout`.
    pub(crate) async fn until(&self, timeout: Duration, condition: impl Fn() -> bool) -> bool {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !condition() {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(timeout, waiting).await.is_ok() || condition()
    }
}

/// The last requests in order of arrival. Older ones are forgotten, but still counted.
pub(crate) struct History<Request> {
    kept: VecDeque<Request>,
    limit: usize,
    total: usize,
}

impl<Request: Clone> History<Request> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            limit,
            total: 0,
        }
    }

    pub(crate) fn push(&mut self, request: Request) {
        self.total += 1;
        if self.limit == 0 {
            return;
        }
        if self.kept.len() == self.limit {
            self.kept.pop_front();
        }
        self.kept.push_back(request);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.kept.iter()
    }

    /// Those that came after the first `seen`, as far as they are kept.
    pub(crate) fn since(&self, seen: usize) -> Vec<Request> {
        let new = self.total.saturating_sub(seen).min(self.kept.len());
        self.kept.iter().skip(self.kept.len() - new).cloned().collect()
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Forgets the requests, not their number.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }
}

/// Requests that were refused although no test had scripted it. Bounded, for fakes that run for days.
#[derive(Default)]
pub(crate) struct Refusals(Vec<String>);

impl Refusals {
    const LIMIT: usize = 1_000;

    pub(crate) fn push(&mut self, refusal: String) {
        if self.0.len() < Self::LIMIT {
            self.0.push(refusal);
        }
    }

    pub(crate) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn all(&self) -> &[String] {
        &self.0
    }
}
