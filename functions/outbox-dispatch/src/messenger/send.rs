//! Sends messages through Meta, and learns from its answers.
//!
//! Each page's messages leave side by side, at the page's pace; a person's one after the other. An attempt whose answer
//! is lost is made again, unless the message's echo has settled it: Meta knows no idempotency key.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use shared::clients::graph::{Credentials, ErrorKind, GraphApp, GraphClient, GraphError};
use shared::clock::Clock;
use shared::messenger::decide::{Plan, learn};
use shared::messenger::key::{Channel, ContactKey};
use shared::messenger::send::{self, Lesson, Message, Refusal, Verdict};
use shared::messenger::settings::MessengerSettings;
use shared::messenger::table::{Contacts, Record, Turn, Unit};
use shared::outbox::{Entry, Outbox, OutboxItem, Reason};
use shared::secrets::{MetaSecret, Secret};
use shared::store::{Rounds, StoreError};
use shared::telemetry;

pub(crate) use super::pace::Pages;
use super::pace::{PageTurn, Run, Turns};
use crate::effect::{Group, Task};
use crate::settle::{Outcome, Outcomes, claim, given_back};

/// A claim outlasts the run: until what came of the message is written down, no other run may have it.
const LEASE: Duration = Duration::from_mins(2);
/// No call is begun with less than this left.
const MARGIN: SignedDuration = SignedDuration::from_secs(18);
/// Messages of a page under way at once.
const CONCURRENCY: usize = 8;
/// Meta limits messages to one thread, and does not say how.
const PER_PERSON: SignedDuration = SignedDuration::from_secs(1);
/// Without a word of Meta's on how long.
const RATE_LIMITED: Duration = Duration::from_mins(1);
/// Why the contact is not written any more.
const CONTENDED: &str = "a contact is written too often to keep up with";

/// Sends messages.
pub(crate) struct SendWorker {
    pub(crate) contacts: Contacts,
    pub(crate) outbox: Outbox,
    pub(crate) graph: GraphClient,
    pub(crate) meta: Secret<MetaSecret>,
    pub(crate) settings: MessengerSettings,
    pub(crate) pages: Pages,
    pub(crate) clock: Clock,
}

/// A person's messages.
struct Thread {
    contact: ContactKey,
    tasks: Vec<Task<Message>>,
}

impl SendWorker {
    /// Sends messages, and tells of each item what became of it.
    pub(crate) async fn work(&self, groups: Vec<Group<Message>>, until: Timestamp, outcomes: &Outcomes) {
        let run = Run::new(self.clock.now(), until - MARGIN);
        let mut pages: BTreeMap<String, Vec<Thread>> = BTreeMap::new();
        for group in groups {
            let Ok(contact) = group.subject.parse::<ContactKey>() else {
                outcomes.tell_all(group.outcome(&Outcome::dead(Reason::PayloadUnreadable)));
                continue;
            };
            let threads = pages.entry(contact.account_id.clone()).or_default();
            threads.push(Thread {
                contact,
                tasks: group.tasks,
            });
        }
        let pages = pages
            .iter_mut()
            .map(|(account_id, threads)| self.page(account_id, std::mem::take(threads), run, outcomes));
        futures_util::future::join_all(pages).await;
    }

    async fn page(&self, account_id: &str, threads: Vec<Thread>, run: Run, outcomes: &Outcomes) {
        let messages = threads.iter().map(|thread| thread.tasks.len()).sum();
        let turns = Turns::new(&self.contacts, &self.pages, account_id, messages, run);
        stream::iter(threads)
            .for_each_concurrent(CONCURRENCY, |thread| self.thread(thread, &turns, run, outcomes))
            .await;
    }

    async fn thread(&self, thread: Thread, turns: &Turns<'_>, run: Run, outcomes: &Outcomes) {
        let mut is_stopped = false;
        for (place, Task { entry, effect }) in thread.tasks.into_iter().enumerate() {
            if is_stopped {
                outcomes.tell(entry, Outcome::Busy);
                continue;
            }
            if place > 0 && !run.is_over() {
                tokio::time::sleep(PER_PERSON.unsigned_abs()).await;
            }
            let sent = Box::pin(self.message(&thread.contact, &entry, &effect, turns, run)).await;
            // Another run has it: what comes after it would overtake it.
            is_stopped = sent == Err(Outcome::Busy);
            outcomes.tell(entry, sent.unwrap_or_else(|outcome| outcome));
        }
    }

    /// One message. Errors are outcomes as well.
    async fn message(
        &self,
        key: &ContactKey,
        entry: &Entry,
        message: &Message,
        turns: &Turns<'_>,
        run: Run,
    ) -> Result<Outcome, Outcome> {
        // A page's many messages would wait for a turn each, long after the time was up.
        if run.is_over() || turns.are_over() {
            return Err(Outcome::Busy);
        }
        // Before the turn: what another run has sent meanwhile must not use one up.
        let (_, lease) = claim(&self.outbox, entry, LEASE).await?;
        let sent = self.claimed(key, entry, message, turns, run).await;
        if sent == Err(Outcome::Busy) {
            given_back(self.outbox.release(&lease).await, "message");
        }
        sent
    }

    async fn claimed(
        &self,
        key: &ContactKey,
        entry: &Entry,
        message: &Message,
        turns: &Turns<'_>,
        run: Run,
    ) -> Result<Outcome, Outcome> {
        let stored = loop {
            match turns.next().await? {
                PageTurn::Taken => {}
                PageTurn::TooLate => return Err(Outcome::Busy),
                PageTurn::Paused(wait) => {
                    return Err(Outcome::Failing {
                        reason: Reason::PageRestricted.into(),
                        wait,
                    });
                }
            }
            match self.contacts.take_turn(key, PER_PERSON, run.now()).await {
                Ok(Turn::Now(stored)) => break stored,
                // By another process: the page's next turn is theirs.
                Ok(Turn::In(wait)) => tokio::time::sleep(wait.unsigned_abs()).await,
                Ok(Turn::Missing) => return Ok(Outcome::dead(Reason::ContactUnknown)),
                Err(error) if error.is_unreadable() => {
                    error.count_unreadable("contact");
                    return Err(Outcome::retry(Reason::UnreadableContact));
                }
                Err(error) => return Err(error.into()),
            }
        };
        if run.is_over() {
            return Err(Outcome::Busy);
        }
        if let Some(refusal) = send::refusal(&stored.contact, message.way, self.clock.now()) {
            let reason = match refusal {
                Refusal::OptedOut => Reason::OptedOut,
                Refusal::Unreachable => Reason::Unreachable,
                Refusal::WindowClosed => Reason::WindowClosed,
            };
            return self.give_up(key, message, reason, None).await;
        }
        self.call(key, entry, message).await
    }

    async fn call(&self, key: &ContactKey, entry: &Entry, message: &Message) -> Result<Outcome, Outcome> {
        let secret = self.meta.get().await?;
        let answer = match self.post(&secret, key, message).await {
            // The token may have been replaced: an expected side effect of that must not raise an alarm.
            Err(Failed::NoToken) => self.again(&secret, key, message, Failed::NoToken).await,
            Err(Failed::Graph(error))
                if matches!(error.kind, ErrorKind::TokenInvalid { .. } | ErrorKind::App) =>
            {
                self.again(&secret, key, message, Failed::Graph(error)).await
            }
            answer => answer,
        };
        match answer {
            Ok(usage) => {
                metrics::counter!(telemetry::MESSENGER_SENDS).increment(1);
                self.pages.sent(&key.account_id, usage);
                Ok(Outcome::Done)
            }
            Err(Failed::NoToken) => Ok(Outcome::misconfigured(Reason::NoPageToken)),
            Err(Failed::Graph(error)) => self.failed(key, entry, message, &error).await,
        }
    }

    async fn again(
        &self,
        refused: &std::sync::Arc<MetaSecret>,
        key: &ContactKey,
        message: &Message,
        failed: Failed,
    ) -> Result<u64, Failed> {
        match self.meta.newer(refused).await {
            Ok(Some(fresh)) => self.post(&fresh, key, message).await,
            _ => Err(failed),
        }
    }

    /// Gives how much of the page's limit is used up, in percent.
    async fn post(&self, secret: &MetaSecret, key: &ContactKey, message: &Message) -> Result<u64, Failed> {
        let Some(token) = secret.page_access_tokens.get(&key.account_id) else {
            return Err(Failed::NoToken);
        };
        let app = GraphApp::new(&secret.app_id, &secret.app_secret);
        let credentials = Credentials { app: &app, token };
        let sender = match key.channel {
            Channel::Messenger => key.account_id.as_str(),
            Channel::Instagram => "me",
        };
        let body: Value = message.body(key);
        let answer = self.graph.send_message(credentials, sender, &body).await;
        answer.map(|usage| usage.percent).map_err(Failed::Graph)
    }

    async fn failed(
        &self,
        key: &ContactKey,
        entry: &Entry,
        message: &Message,
        error: &GraphError,
    ) -> Result<Outcome, Outcome> {
        let wait = match error.kind {
            ErrorKind::Retryable { wait } => wait,
            _ => None,
        };
        let verdict = match error.status {
            // Nothing says that Meta has not sent it, and nothing that it has.
            None if error.code.is_none() => Verdict::Transient,
            status => Verdict::of(
                error.code,
                error.subcode,
                error.is_retryable(),
                status.unwrap_or_default(),
            ),
        };
        tracing::warn!(
            %error,
            contact = telemetry::pseudonym(&entry.subject),
            graph.trace = error.trace_id,
            ?verdict,
            "Meta did not take a message"
        );
        let reason = error.reason();
        match verdict {
            Verdict::Sent => {
                metrics::counter!(telemetry::MESSENGER_SENDS).increment(1);
                Ok(Outcome::Done)
            }
            Verdict::WindowClosed => {
                self.give_up(key, message, Reason::WindowClosed, Some(Lesson::WindowClosed))
                    .await
            }
            Verdict::Unreachable => {
                self.give_up(key, message, Reason::Unreachable, Some(Lesson::Unreachable))
                    .await
            }
            Verdict::TopicStopped => self.give_up(key, message, Reason::TopicStopped, None).await,
            Verdict::OtherApp => self.give_up(key, message, Reason::OtherAppHasThread, None).await,
            Verdict::MetaFlow | Verdict::Transient => Ok(Outcome::Retry { reason, wait }),
            Verdict::TokenInvalid => Ok(Outcome::misconfigured(Reason::PageTokenInvalid)),
            Verdict::Configuration => Ok(Outcome::Misconfigured { reason, wait }),
            Verdict::PageRestricted => {
                let wait = self.pages.restricted(&key.account_id, self.clock.now());
                Ok(Outcome::misconfigured_after(Reason::PageRestricted, wait))
            }
            Verdict::RateLimited => {
                let wait = wait.unwrap_or(RATE_LIMITED);
                self.pages.pause(&key.account_id, self.clock.now(), wait);
                Ok(Outcome::retry_after(reason, wait))
            }
            Verdict::Attachment if entry.attempts == 0 => Ok(Outcome::Retry { reason, wait }),
            Verdict::Attachment | Verdict::Malformed => self.give_up(key, message, reason, None).await,
        }
    }

    /// The message is dead: what Meta's answer taught is kept, and the failure reported, before it is said.
    async fn give_up(
        &self,
        key: &ContactKey,
        message: &Message,
        reason: impl Into<String>,
        lesson: Option<Lesson>,
    ) -> Result<Outcome, Outcome> {
        metrics::counter!(telemetry::MESSENGER_SEND_FAILURES).increment(1);
        let (reason, now) = (reason.into(), self.clock.now());
        let report = message.failed(key, &reason, now, &self.settings.events);
        self.note(key, lesson, report, now).await?;
        Ok(Outcome::Dead { reason })
    }

    async fn note(
        &self,
        key: &ContactKey,
        lesson: Option<Lesson>,
        report: Option<OutboxItem>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut rounds = Rounds::new(CONTENDED);
        loop {
            let (mut plan, mut replaces) = (Plan::default(), None);
            if let Some(lesson) = lesson {
                let known = self.contacts.read(std::slice::from_ref(key), &[], &[]).await?;
                if let Some(stored) = known.contacts.get(key) {
                    plan = learn(stored, lesson, now, &self.settings);
                    replaces = Some(stored.contact.first_seen);
                }
            }
            plan.outbox.extend(report.clone());
            let unit = Unit {
                record: plan.contact.map(Record::Contact),
                claims: plan.claims,
                outbox: plan.outbox,
                replaces,
                ..Unit::default()
            };
            if unit.is_empty() || self.contacts.write(vec![((), unit)]).await?.is_empty() {
                return Ok(());
            }
            rounds.next().await?;
        }
    }
}

/// Why a message did not leave.
enum Failed {
    /// There is no token of the page or account.
    NoToken,
    Graph(GraphError),
}
