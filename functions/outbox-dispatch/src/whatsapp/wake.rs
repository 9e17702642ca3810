//! Wake-ups: what a conversation has that is new goes through a queue to a worker.
//!
//! A wake-up names a conversation and its items, and is never state: the tables say what is to be done, and the lease
//! says by which worker. One that is lost costs a tick of the schedule, one that comes twice costs a read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shared::outbox::Entry;
use shared::personal::Personal;
use shared::sdk_error;

/// Messages that SQS takes in one request.
const MAX_BATCH: usize = 10;

/// The longest that SQS delays a message; what is later is the schedule's.
const LONGEST_DELAY: Duration = Duration::from_mins(15);

/// The body of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WakeUp {
    /// The conversation.
    pub(crate) subject: Personal<String>,
    /// Its items that have something new.
    pub(crate) event_keys: Personal<Vec<String>>,
}

/// Some wake-ups were not taken.
#[derive(Debug, thiserror::Error)]
#[error("SQS SendMessageBatch failed: {reason}")]
pub(crate) struct NotSent {
    reason: String,
    /// The conversations that they would have woken.
    pub(crate) subjects: BTreeSet<String>,
}

/// The queue of wake-ups.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    client: Client,
    url: String,
}

impl Queue {
    pub(crate) fn new(client: Client, url: String) -> Self {
        Self { client, url }
    }

    /// Sends wake-ups, each to arrive after its delay.
    pub(crate) async fn send(&self, wake_ups: &[(WakeUp, Duration)]) -> Result<(), NotSent> {
        let (mut subjects, mut reason) = (BTreeSet::new(), String::new());
        for wake_ups in wake_ups.chunks(MAX_BATCH) {
            let failed = self.send_batch(wake_ups).await.unwrap_or_else(|error| {
                reason = error;
                (0..wake_ups.len()).collect()
            });
            let failed = failed.into_iter().filter_map(|place| wake_ups.get(place));
            subjects.extend(failed.map(|(wake_up, _)| wake_up.subject.0.clone()));
        }
        if subjects.is_empty() {
            Ok(())
        } else {
            Err(NotSent { reason, subjects })
        }
    }

    /// The places of those that SQS refuses.
    async fn send_batch(&self, wake_ups: &[(WakeUp, Duration)]) -> Result<Vec<usize>, String> {
        let mut request = self.client.send_message_batch().queue_url(&self.url);
        for (at, (wake_up, delay)) in wake_ups.iter().enumerate() {
            // Rounded up: one that comes a moment too early would find that it is not time yet.
            let seconds = delay.min(&LONGEST_DELAY).as_millis().div_ceil(1000);
            let entry = SendMessageBatchRequestEntry::builder()
                .id(at.to_string())
                .message_body(serde_json::to_string(wake_up).map_err(|error| error.to_string())?)
                .delay_seconds(i32::try_from(seconds).unwrap_or_default())
                .build()
                .map_err(|error| error.to_string())?;
            request = request.entries(entry);
        }
        let answer = Box::pin(request.send()).await;
        let answer = answer.map_err(|error| sdk_error::reason(&error))?;
        let failed = answer
            .failed()
            .iter()
            .filter_map(|failed| failed.id().parse().ok());
        Ok(failed.collect())
    }
}

/// The wake-ups for new items: one for each conversation, when the last of its items may be worked on. What is too far
/// off is the schedule's.
pub(crate) fn wake_ups(entries: &[Entry], now: Timestamp) -> Vec<(WakeUp, Duration)> {
    let mut by_subject: BTreeMap<&str, (Vec<String>, Duration)> = BTreeMap::new();
    for entry in entries {
        let (keys, delay) = by_subject.entry(&entry.subject).or_default();
        let wait = entry.not_before.map(|at| at.duration_since(now));
        let wait = wait
            .and_then(|wait| Duration::try_from(wait).ok())
            .unwrap_or_default();
        *delay = wait.max(*delay);
        keys.push(entry.event_key.clone());
    }
    by_subject.retain(|_, (_, delay)| *delay <= LONGEST_DELAY);
    let wake_up = |(subject, (event_keys, delay)): (&str, _)| {
        let wake_up = WakeUp {
            subject: subject.into(),
            event_keys: Personal(event_keys),
        };
        (wake_up, delay)
    };
    by_subject.into_iter().map(wake_up).collect()
}
