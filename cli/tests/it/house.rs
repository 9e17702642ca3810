//! A local stack with development secrets and all fakes, and what a sender does.

use std::collections::BTreeMap;
use std::time::Duration;

use assert_cmd::cargo::cargo_bin_cmd;
use bridge::check;
use bridge::inspect::{self, CONTACTS, OUTBOX, Snapshot};
use bridge::payloads::{self, Payload, Sender};
use bridge::secrets::development_credential;
use bridge::stack::{LocalStack, StackOptions};
use jiff::SignedDuration;
use serde_json::{Value, json};
use shared::clock::Clock;
use testkit::braze::FakeBraze;
use testkit::time::{self, PATIENCE, eventually};

pub(crate) struct House {
    pub(crate) stack: LocalStack,
    pub(crate) clock: Clock,
    client: reqwest::Client,
}

impl House {
    /// With a clock that stands still, so that two houses can be compared.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        Self::with_clock(settings, Clock::fixed(time::start())).await
    }

    /// With a clock that runs.
    pub(crate) async fn live(settings: &[(&str, &str)]) -> Self {
        Self::with_clock(settings, Clock::starting_at(time::start())).await
    }

    async fn with_clock(settings: &[(&str, &str)], clock: Clock) -> Self {
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let options = StackOptions {
            settings: settings.collect(),
            ..StackOptions::with_clock(&clock)
        };
        Self {
            stack: LocalStack::start(options).await.unwrap(),
            clock,
            client: shared::clients::http::client(PATIENCE),
        }
    }

    pub(crate) fn braze(&self) -> &FakeBraze {
        self.stack.fakes().braze.as_ref().unwrap()
    }

    /// Posts once, and gives the status.
    pub(crate) async fn post(&self, payload: &Payload) -> u16 {
        let url = format!("{}{}", self.stack.url(), payload.sender.path());
        self.request(&url, payload)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    }

    fn request(&self, url: &str, payload: &Payload) -> reqwest::RequestBuilder {
        let mut request = self.client.post(url);
        for (name, value) in payload.headers(&development_credential(payload.sender)) {
            request = request.header(name, value);
        }
        request.body(payload.body.clone())
    }

    /// Posts as Meta does: until it is accepted.
    pub(crate) async fn deliver(&self, payload: &Payload) {
        let accepted = async || match self.post(payload).await {
            200 | 202 => true,
            503 => false,
            status => panic!("{}: {status}", payload.name),
        };
        assert!(eventually(accepted).await, "{}: never accepted", payload.name);
    }

    /// Runs a command against this stack, at its time, and gives what it prints.
    pub(crate) fn bridge(&self, command: &str, arguments: &[&str], code: i32) -> String {
        let address = self.stack.aws().address().to_string();
        let output = cargo_bin_cmd!("bridge")
            .args(["--now", &self.clock.now().to_string(), command])
            .args(arguments)
            .args(["--aws-addr", &address])
            .assert()
            .code(code)
            .get_output()
            .clone();
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn later(&self, duration: SignedDuration) {
        self.clock.set(self.clock.now() + duration);
    }

    /// Delivers all, several at a time, as Meta's servers do.
    pub(crate) async fn deliver_all(&self, payloads: &[Payload], at_once: usize) {
        for some in payloads.chunks(at_once) {
            let deliveries: Vec<_> = some.iter().map(|payload| self.deliver(payload)).collect();
            futures_util::future::join_all(deliveries).await;
        }
    }

    /// Lets time pass, so that everything which waits for another try is due, until nothing is pending.
    pub(crate) async fn drain(&self) {
        for _ in 0..50 {
            if inspect::drained(&self.stack, Duration::from_secs(3))
                .await
                .unwrap()
            {
                return;
            }
            self.later(SignedDuration::from_hours(1));
        }
        panic!("the outbox is not drained");
    }

    /// What the tables, the outbox and Braze do not agree about.
    pub(crate) async fn problems(&self) -> Vec<String> {
        check::problems(&self.stack, &self.snapshot().await).unwrap()
    }

    pub(crate) async fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.stack).await.unwrap()
    }

    /// The facts of all contacts and `user_ref`s, without the store's bookkeeping.
    pub(crate) async fn facts(&self) -> BTreeMap<String, Value> {
        let facts = |item: &Value| {
            let contact = inspect::contact(item);
            let mut facts = contact.map_or_else(|| item["facts"].clone(), |contact| json!(contact));
            if let Some(facts) = facts.as_object_mut() {
                facts.remove("version");
                facts.remove("window_queued");
            }
            facts
        };
        let snapshot = self.snapshot().await;
        let items = snapshot.table(CONTACTS).iter();
        // Users' records hold no facts, only where contacts were moved to.
        let items = items.filter(|(_, item)| item.get("facts").is_some());
        items.map(|(key, item)| (key.clone(), facts(item))).collect()
    }

    /// The outbox's items by status.
    pub(crate) async fn outbox(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for item in self.snapshot().await.table(OUTBOX).values() {
            *counts
                .entry(item["status"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
        counts
    }

    /// Braze's profiles without its own ids, in an order that does not depend on when they were made.
    pub(crate) fn profiles(&self) -> BTreeMap<String, Value> {
        let profiles = self.braze().profiles().into_iter().map(|profile| {
            let name = format!("{:?} {:?}", profile.external_id, profile.aliases);
            let mut events: Vec<String> = profile.events.iter().map(|event| format!("{event:?}")).collect();
            events.sort();
            (
                name,
                json!({ "attributes": profile.attributes, "events": events }),
            )
        });
        profiles.collect()
    }
}

/// A recorded payload.
pub(crate) fn payload(name: &str) -> Payload {
    let mut all = Sender::ALL.into_iter().flat_map(payloads::recorded);
    all.find(|payload| payload.name == name).unwrap()
}

/// Every recorded payload of Messenger and Instagram.
pub(crate) fn all() -> Vec<Payload> {
    [Sender::Messenger, Sender::Instagram]
        .into_iter()
        .flat_map(payloads::recorded)
        .collect()
}
