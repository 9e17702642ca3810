//! Watches the local stack: what its functions are asked, what they change, and what leaves.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use serde_json::Value;
use shared::clock::Clock;
use shared::fbe::redact;
use testkit::braze::FakeBraze;
use testkit::external_system::ExternalSystem;
use testkit::lambda::{Handler, handler};
use tokio_util::sync::CancellationToken;

use super::flow::{Call, Change, Flow, Flows, Origin, Party, Subject};
use super::read::{self, Keys, Read};
use super::tables::Tables;
use crate::fakes::Fakes;
use crate::said::{self, cut, quoted};

/// How often it is looked for what followed. It should feel immediate.
const LOOK: Duration = Duration::from_millis(100);
/// Subjects looked at in one go, and how many of them at once.
const SUBJECTS: usize = 50;
const AT_ONCE: usize = 8;
/// Rows of one request that are compared.
const ROWS: usize = 20;
/// Fields of one row that are shown, and how much of each.
const FIELDS: usize = 40;
const LONGEST: usize = 300;
/// Texts of a call that are looked through for ids, and its longest body.
const TEXTS: usize = 5_000;
const LARGEST_CALL: usize = 16 << 10;

/// Watches.
pub(crate) struct Recorder {
    flows: Arc<Flows>,
    tables: Tables,
    keys: Keys,
    clock: Clock,
}

impl Recorder {
    pub(crate) fn new(flows: Arc<Flows>, tables: Tables, keys: Keys, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            flows,
            tables,
            keys,
            clock,
        })
    }

    /// The function, watched.
    pub(crate) fn recording(self: &Arc<Self>, function: Handler) -> Handler {
        let recorder = self.clone();
        handler(move |event: Value| {
            let (recorder, function) = (recorder.clone(), function.clone());
            async move {
                let Some(read) = read::read(&event, &recorder.keys, recorder.clock.now()) else {
                    return function(event).await;
                };
                recorder.record(read, function(event)).await
            }
        })
    }

    async fn record(
        &self,
        Read { mut flow, user }: Read,
        function: impl Future<Output = anyhow::Result<Value>>,
    ) -> anyhow::Result<Value> {
        if let Some(user) = user {
            let contacts = self.tables.contacts_of(&user).await.unwrap_or_default();
            flow.subjects.extend(contacts.into_iter().map(Subject::Contact));
            flow.names.insert(user);
        }
        let subjects = flow.subjects.clone();
        let before = self.facts(&subjects).await;
        let number = self.flows.begin(flow);
        let mut unanswered = Unanswered {
            flows: &self.flows,
            number: Some(number),
            started: Instant::now(),
        };
        let answered = function.await;
        let took = unanswered.started.elapsed();
        unanswered.number = None;
        let after = self.facts(&subjects).await;
        let users: HashSet<String> = after.iter().flatten().filter_map(user_of).collect();
        let rows = subjects.iter().zip(before.iter().zip(&after));
        let changes =
            rows.filter_map(|(subject, (before, after))| change(subject, before.as_ref(), after.as_ref()));
        let changes: Vec<Change> = changes.collect();
        self.flows.change(number, |flow| {
            flow.took = Some(took);
            flow.names.extend(users);
            flow.changes = changes;
            let answer = answered.as_ref().ok();
            let status = answer.and_then(|answer| answer.get("statusCode")?.as_u64());
            flow.status = status.map_or(Some(500), |status| u16::try_from(status).ok());
            let body = answer.and_then(|answer| answer.get("body")?.as_str());
            flow.answer = body.unwrap_or_default().chars().take(2_000).collect();
            if matches!(flow.status, Some(401 | 403)) {
                flow.proof = super::flow::Proof::Wrong;
            }
        });
        answered
    }

    async fn facts(&self, subjects: &[Subject]) -> Vec<Option<Value>> {
        let subjects: Vec<Subject> = subjects.iter().take(ROWS).cloned().collect();
        let rows = stream::iter(subjects).map(|subject| {
            let tables = self.tables.clone();
            async move { tables.row(&subject).await.ok().flatten() }
        });
        rows.buffered(AT_ONCE).collect().await
    }

    /// Looks for what follows, until stopped.
    pub(crate) async fn follow(self: Arc<Self>, fakes: Arc<Fakes>, stop: CancellationToken) {
        let mut seen = Seen::default();
        while !stop.is_cancelled() {
            let calls = seen.calls(&fakes, &self.clock);
            let watched = self.flows.watched(SUBJECTS);
            let found = stream::iter(watched).map(|(subject, since)| {
                let tables = self.tables.clone();
                // A table that does not answer does at the next look.
                async move { tables.items_since(&subject, since).await.unwrap_or_default() }
            });
            let found: Vec<_> = found.buffer_unordered(AT_ONCE).collect().await;
            self.flows.found(found.into_iter().flatten().collect());
            let left = self.flows.called(calls);
            if !left.is_empty() {
                let mut flow = Flow::new(Origin::Schedule, self.clock.now());
                flow.calls = left;
                self.flows.begin(flow);
            }
            self.flows.settled();
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Notes that a function gave no answer, if it is dropped: it ran out of time, or panicked.
struct Unanswered<'a> {
    flows: &'a Flows,
    /// `None`: it was answered.
    number: Option<u64>,
    started: Instant,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let took = self.started.elapsed();
            self.flows.change(number, |flow| flow.took = Some(took));
        }
    }
}

fn user_of(row: &Value) -> Option<String> {
    let user = row.pointer("/facts/link/value/user_id").and_then(Value::as_str);
    user.map(str::to_owned)
}

/// What is different in a row. Bookkeeping is left out.
fn change(subject: &Subject, before: Option<&Value>, after: Option<&Value>) -> Option<Change> {
    let after = after?;
    let (old, new) = (texts(before), texts(Some(after)));
    let names: BTreeSet<&String> = old.iter().chain(&new).map(|(name, _)| name).collect();
    let of = |all: &[(String, String)], wanted: &String| {
        all.iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.clone())
    };
    let fields = names.into_iter().filter_map(|name| {
        let (before, after) = (of(&old, name), of(&new, name));
        (before != after).then(|| (name.clone(), before, after))
    });
    Some(Change {
        subject: subject.clone(),
        is_new: before.is_none(),
        fields: fields.take(FIELDS).collect(),
    })
}

/// The facts of a row, by their paths.
fn texts(row: Option<&Value>) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    if let Some(row) = row {
        if let Some(facts) = row.get("facts") {
            flatten("", &redact::value(facts), &mut texts);
        }
        for name in ["latest", "status"] {
            if let Some(value) = row.get(name) {
                flatten(name, value, &mut texts);
            }
        }
    }
    texts
}

fn flatten(name: &str, value: &Value, texts: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                if matches!(member.as_str(), "version" | "digest" | "key") {
                    continue;
                }
                let name = if name.is_empty() {
                    member.clone()
                } else {
                    format!("{name}.{member}")
                };
                flatten(&name, value, texts);
            }
        }
        Value::Null => {}
        Value::String(text) => texts.push((name.to_owned(), cut(text, LONGEST))),
        other => texts.push((name.to_owned(), cut(&other.to_string(), LONGEST))),
    }
}

/// How many calls of each fake were seen.
#[derive(Default)]
struct Seen {
    braze: usize,
    graph: usize,
    external_system: usize,
    partner: usize,
}

impl Seen {
    fn calls(&mut self, fakes: &Fakes, clock: &Clock) -> Vec<Call> {
        let at = clock.now();
        let call = |to: Party, path: &str, status: Option<u16>, said: Vec<String>, body: &Value| {
            let mut names = HashSet::from([path.to_owned()]);
            collect(body, &mut names);
            let large = body.to_string().len() > LARGEST_CALL;
            let body = if large {
                Value::from("too large to be remembered")
            } else {
                redact::value(body)
            };
            Call {
                to,
                path: path.to_owned(),
                status,
                said,
                body,
                at,
                names,
            }
        };
        let mut calls = Vec::new();
        if let Some(fake) = &fakes.external_system {
            let now = ExternalSystem::handover_count(fake);
            for handover in fake
                .handovers_since(self.external_system)
                .iter()
                .take(now - self.external_system)
            {
                let said = vec![quoted(&handover.texts().join(" / "))];
                calls.push(call(
                    Party::ExternalSystem,
                    &handover.path,
                    handover.status,
                    said,
                    &handover.body,
                ));
            }
            self.external_system = now;
        }
        if let Some(fake) = &fakes.graph {
            let now = fake.call_count();
            for one in fake.calls_since(self.graph).iter().take(now - self.graph) {
                let body = Value::Object(one.parameters.clone());
                calls.push(call(Party::Graph, &one.path, one.status, Vec::new(), &body));
            }
            self.graph = now;
        }
        if let Some(fake) = &fakes.partner {
            for notice in fake.notices_since(self.partner) {
                self.partner += 1;
                calls.push(call(
                    Party::Partner,
                    "/installs",
                    Some(200),
                    Vec::new(),
                    &notice.body,
                ));
            }
        }
        if let Some(fake) = &fakes.braze {
            let now = FakeBraze::request_count(fake);
            for request in fake.requests_since(self.braze).iter().take(now - self.braze) {
                let said = said::to_braze(&request.body);
                calls.push(call(
                    Party::Braze,
                    &request.path,
                    request.status,
                    said,
                    &request.body,
                ));
            }
            self.braze = now;
        }
        calls
    }
}

/// Texts and numbers at any depth.
fn collect(value: &Value, names: &mut HashSet<String>) {
    if names.len() >= TEXTS {
        return;
    }
    match value {
        Value::String(text) => drop(names.insert(text.clone())),
        Value::Number(number) => drop(names.insert(number.to_string())),
        Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
        Value::Object(members) => members.values().for_each(|value| collect(value, names)),
        _ => {}
    }
}
