//! What a million of each job cost, from the calls that the functions make, against the table in the documents.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;
use bridge::functions::{self, Wiring};
use bridge::payloads::{Sender, recorded};
use jiff::SignedDuration;
use serde_json::{Map, Value, json};
use shared::messenger::link::mint;
use shared::webhook::signature::sign;
use shared::webhook::signed_request;
use testkit::external_system::Behaviour;
use testkit::fault::{Answer, Fault};
use testkit::graph::Install;
use testkit::house::{APP_SECRET, House, INBOUND_TOKEN, LINK_KEY, PAGE, SIGNING_SECRET};
use testkit::lambda::Handler;
use testkit::signer::{self, standard_webhooks_headers};

/// Dollars a million: list prices of us-east-1, `x86_64`, on demand.
mod price {
    pub(super) const API_REQUEST: f64 = 1.0;
    pub(super) const LAMBDA_CALL: f64 = 0.2;
    pub(super) const GB_SECOND: f64 = 16.6667;
    pub(super) const READ: f64 = 0.125;
    pub(super) const WRITE: f64 = 0.625;
    pub(super) const QUEUE_REQUEST: f64 = 0.4;
    pub(super) const SECRET_REQUEST: f64 = 5.0;
    pub(super) const LOG_KB: f64 = 0.5;
}

/// What is assumed where nothing can be counted: how long calls take, in seconds, and how much they log, in KB.
const WEBHOOK_SECONDS: f64 = 0.02;
const DISPATCH_SECONDS: f64 = 0.3;
/// The external system's two seconds, and what is around them.
const ANSWER_SECONDS: f64 = 2.0;
const WEBHOOK_LOG: f64 = 1.0;
const DISPATCH_LOG: f64 = 0.5;

type Item = HashMap<String, AttributeValue>;

/// What one of a job takes.
#[derive(Debug, Default)]
struct Used {
    requests: f64,
    calls: f64,
    gb_seconds: f64,
    reads: f64,
    writes: f64,
    queue: f64,
    secrets: f64,
    log: f64,
}

impl Used {
    fn row(&self, job: &str) -> String {
        let parts = [
            self.requests * price::API_REQUEST,
            self.calls * price::LAMBDA_CALL + self.gb_seconds * price::GB_SECOND,
            self.reads * price::READ + self.writes * price::WRITE,
            self.queue * price::QUEUE_REQUEST + self.secrets * price::SECRET_REQUEST,
            self.log * price::LOG_KB,
        ];
        let dollars: Vec<String> = parts.iter().map(|part| format!("{part:.2}")).collect();
        let [api, lambda, dynamodb, other, logs] = dollars.try_into().unwrap();
        format!(
            "| {job} | {api} | {lambda} ({} calls) | {dynamodb} ({} reads, {} writes) | {other} | {logs} | **{:.2}** |",
            self.calls,
            self.reads,
            self.writes,
            parts.iter().sum::<f64>(),
        )
    }
}

fn number(calls: u64) -> f64 {
    f64::from(u32::try_from(calls).unwrap())
}

struct Meter {
    house: House,
    functions: BTreeMap<String, (Handler, f64)>,
    used: Used,
}

impl Meter {
    async fn start() -> Self {
        let house = House::start().await.unwrap();
        let queues = house.aws.create_queues(house.template()).await.unwrap();
        let aws = house.aws.sdk_config();
        let mut made = BTreeMap::new();
        for function in house.template().functions() {
            let mut environment = house.environment(&function.logical_id);
            if let Some(url) = environment.get_mut("RELAY_QUEUE_URL") {
                url.clone_from(queues.get("RelayQueue").unwrap());
            }
            let wiring = Wiring {
                function,
                environment: &environment,
                aws: &aws,
                clock: &house.clock,
            };
            let gigabytes = f64::from(u32::try_from(function.memory_mib).unwrap()) / 1024.0;
            let handler = functions::make(&wiring).unwrap().unwrap();
            made.insert(function.logical_id.clone(), (handler, gigabytes));
        }
        Self {
            house,
            functions: made,
            used: Used::default(),
        }
    }

    async fn tables(&self) -> BTreeMap<String, Vec<Item>> {
        let mut tables = BTreeMap::new();
        for table in self.house.template().tables() {
            let items = self.house.items(&table.logical_id).await.unwrap();
            tables.insert(table.logical_id.clone(), items);
        }
        tables
    }

    /// Writes that indexes take beside their tables: one for an entry that comes or goes, two for one that moves.
    fn index_writes(&self, before: &BTreeMap<String, Vec<Item>>, after: &BTreeMap<String, Vec<Item>>) -> f64 {
        let mut writes = 0.0;
        for table in self.house.template().tables() {
            let by_key = |items: &[Item]| -> HashMap<String, Item> {
                let key = |item: &Item| {
                    let parts = table.key.iter().map(|key| format!("{:?}", item.get(&key.name)));
                    parts.collect::<String>()
                };
                items.iter().map(|item| (key(item), item.clone())).collect()
            };
            let (before, after) = (
                by_key(before.get(&table.logical_id).unwrap()),
                by_key(after.get(&table.logical_id).unwrap()),
            );
            for index in &table.indexes {
                let entry = |item: Option<&Item>| -> Option<String> {
                    let parts = index
                        .key
                        .iter()
                        .map(|key| item?.get(&key.name).map(|value| format!("{value:?}")));
                    parts.collect::<Option<String>>()
                };
                let is_whole = index.projection.projection_type != "KEYS_ONLY";
                for (key, item) in &after {
                    let was = before.get(key);
                    writes += match (entry(was), entry(Some(item))) {
                        (Some(was), Some(is)) if was != is => 2.0,
                        (Some(_), Some(_)) if is_whole && was != Some(item) => 1.0,
                        (Some(_), Some(_)) | (None, None) => 0.0,
                        _ => 1.0,
                    };
                }
            }
        }
        writes
    }

    /// Invokes a function, and adds up what that takes.
    async fn invoke(&mut self, function: &str, event: Value, seconds: f64, log: f64) -> Value {
        let before = self.tables().await;
        self.house.aws.reset_calls();
        let (handler, gigabytes) = self.functions.get(function).unwrap().clone();
        let answer = handler(event).await.unwrap();
        let units = self.house.aws.dynamodb_units();
        let secrets = self.house.aws.secrets_manager_calls();
        let queue = self.house.aws.sqs_calls();
        let after = self.tables().await;
        let indexes = self.index_writes(&before, &after);
        let used = &mut self.used;
        used.calls += 1.0;
        used.gb_seconds += gigabytes * seconds;
        used.reads += units.reads;
        used.writes += units.writes + indexes;
        used.log += log;
        used.queue += number(queue.total());
        // Reading a secret is shared by all calls of five minutes.
        used.secrets += number(secrets.total() - secrets.of("GetSecretValue"));
        answer
    }

    async fn webhook(&mut self, function: &str, event: Value) {
        self.used.requests += 1.0;
        let answer = self.invoke(function, event, WEBHOOK_SECONDS, WEBHOOK_LOG).await;
        let status = answer.get("statusCode").and_then(Value::as_u64).unwrap();
        assert!((200..300).contains(&status), "{answer}");
    }

    async fn acts(&mut self, psid: &str, key: &str, value: Value) {
        self.house.later(SignedDuration::from_secs(1));
        let event = self.house.act(PAGE, psid, key, value);
        self.webhook("MessengerEventsFunction", event).await;
    }

    async fn writes(&mut self, psid: &str) {
        let mid = format!("m_{}", self.house.clock.now().as_millisecond());
        self.acts(psid, "message", json!({"mid": mid, "text": "hi"}))
            .await;
    }

    async fn pending(&self, lane: &str) -> Vec<Item> {
        let items = self.house.items("OutboxTable").await.unwrap();
        let text = |item: &Item, name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
        let wanted = |item: &Item| {
            text(item, "status").as_deref() == Some("pending") && text(item, "lane").as_deref() == Some(lane)
        };
        items.into_iter().filter(wanted).collect()
    }

    /// The stream brings what was written.
    async fn stream(&mut self, lane: &str) {
        let items = self.pending(lane).await;
        let event = records(&items);
        let answer = self
            .invoke("DispatchSyncFunction", event, DISPATCH_SECONDS, DISPATCH_LOG)
            .await;
        assert_eq!(answer, json!({"batchItemFailures": []}));
    }

    /// The schedule's tick, once this time has passed.
    async fn tick_after(&mut self, minutes: i64) {
        self.house.later(SignedDuration::from_mins(minutes));
        self.invoke("DispatchSyncFunction", json!({}), DISPATCH_SECONDS, DISPATCH_LOG)
            .await;
    }

    /// The queue brings the wake-up, which is received and deleted.
    async fn queue(&mut self, seconds: f64) {
        let items = self.pending("relay").await;
        let text = |item: &Item, name: &str| item.get(name).unwrap().as_s().unwrap().clone();
        let keys: Vec<String> = items.iter().map(|item| text(item, "event_key")).collect();
        let body = json!({"subject": text(items.first().unwrap(), "subject"), "event_keys": keys});
        let event =
            json!({"Records": [{"messageId": "1", "body": body.to_string(), "eventSource": "aws:sqs"}]});
        self.used.queue += 2.0;
        self.invoke("DispatchRelayFunction", event, seconds, DISPATCH_LOG)
            .await;
        assert!(self.pending("relay").await.is_empty(), "it is answered");
    }

    fn bearer(path: &str, body: &Value) -> Value {
        let token = format!("Bearer {INBOUND_TOKEN}");
        let headers = [
            ("authorization", token.as_str()),
            ("content-type", "application/json"),
        ];
        signer::gateway_event("POST", path, "", &headers, body.to_string().as_bytes(), false)
    }

    /// The row of what was done since the last.
    async fn row(&mut self, job: &str) -> String {
        for lane in ["sync", "relay"] {
            let left = self.pending(lane).await;
            assert!(left.is_empty(), "not all of it is counted: {left:?}");
        }
        std::mem::take(&mut self.used).row(job)
    }
}

/// A batch of the stream with these items.
fn records(items: &[Item]) -> Value {
    let record = |(number, item): (usize, &Item)| {
        let image = item.iter().map(|(name, value)| {
            let value = match (value.as_n(), value.as_s()) {
                (Ok(number), _) => json!({"N": number}),
                (_, Ok(text)) => json!({"S": text}),
                _ => panic!("an attribute of another type: {name}"),
            };
            (name.clone(), value)
        });
        let image: Map<String, Value> = image.collect();
        json!({
            "eventID": "1", "eventName": "INSERT", "eventVersion": "1.1", "eventSource": "aws:dynamodb",
            "awsRegion": "us-east-1",
            "dynamodb": {
                "ApproximateCreationDateTime": 1_763_719_200.0, "SequenceNumber": number.to_string(), "SizeBytes": 1,
                "StreamViewType": "NEW_IMAGE", "NewImage": image,
                "Keys": {"subject": image.get("subject"), "event_key": image.get("event_key")},
            },
        })
    };
    json!({"Records": items.iter().enumerate().map(record).collect::<Vec<_>>()})
}

async fn rows() -> Vec<String> {
    let mut meter = Meter::start().await;
    let mut rows = Vec::new();
    // What starting costs is nobody's.
    meter.writes("7000").await;
    meter.stream("sync").await;
    meter.row("").await;

    meter.writes("7000").await;
    rows.push(meter.row("a message of a known person, nothing to sync").await);

    meter.writes("7001").await;
    meter.stream("sync").await;
    rows.push(meter.row("a message of a new person, with its sync").await);

    let (hour, now) = (SignedDuration::from_hours(1), meter.house.clock.now());
    let token = mint(&LINK_KEY.into(), "user-42", hour, now).unwrap();
    meter
        .acts("7001", "referral", json!({"ref": token, "source": "SHORTLINK"}))
        .await;
    meter.stream("sync").await;
    rows.push(
        meter
            .row("a known person is linked to a user, with the sync")
            .await,
    );

    let body = json!({"psid": "7001", "page_id": PAGE, "text": "Your order has left.", "dispatch_id": "d"});
    meter
        .webhook("MessengerSendFunction", Meter::bearer("/messenger/send", &body))
        .await;
    meter.stream("sync").await;
    rows.push(
        meter
            .row("a message of a campaign through `/messenger/send`")
            .await,
    );

    meter.house.braze.add_user("42", &json!({}));
    let body = json!({"user_id": "42", "message": "where is my order?", "dispatch_id": "e"});
    meter
        .webhook("WhatsAppRelayFunction", Meter::bearer("/whatsapp/inbound", &body))
        .await;
    meter.stream("relay").await;
    meter.queue(ANSWER_SECONDS).await;
    rows.push(meter.row("a WhatsApp message, answered after two seconds").await);
    rows.push(answered_later(&mut meter).await);
    rows.extend(businesses(&mut meter).await);
    rows.push(erased(&mut meter).await);
    rows
}

async fn answered_later(meter: &mut Meter) -> String {
    let accepted = Fault::Answer(Answer::json(202, &json!({})));
    meter.house.external_system.script(Behaviour::Fault(accepted));
    let body = json!({"user_id": "42", "message": "and by when?", "dispatch_id": "f"});
    meter
        .webhook("WhatsAppRelayFunction", Meter::bearer("/whatsapp/inbound", &body))
        .await;
    meter.stream("relay").await;
    meter.queue(DISPATCH_SECONDS).await;
    let body = json!({"conversation_id": "user:42", "replies": [{"text": "Tomorrow."}]}).to_string();
    let now = meter.house.clock.now();
    let headers = standard_webhooks_headers(SIGNING_SECRET, "msg_1", now, body.as_bytes()).unwrap();
    let mut headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    headers.push(("content-type", "application/json"));
    let event = signer::gateway_event("POST", "/whatsapp/reply", "", &headers, body.as_bytes(), false);
    meter.webhook("WhatsAppRelayFunction", event).await;
    meter.stream("relay").await;
    meter.queue(DISPATCH_SECONDS).await;
    let last = meter.house.braze.sent_messages().pop().unwrap();
    assert!(last.trigger_properties.values().any(|said| said == "Tomorrow."));
    meter
        .row("the same, answered later through `/whatsapp/reply`")
        .await
}

async fn businesses(meter: &mut Meter) -> Vec<String> {
    let mut rows = Vec::new();
    for (case, job) in [
        (
            "fbe/install",
            "an FBE install, with exchange, comparison and notice",
        ),
        ("fbe/uninstall", "its removal, with the notice"),
    ] {
        let mut recorded = recorded(Sender::Fbe).into_iter();
        let body = recorded.find(|payload| payload.name == case).unwrap().body;
        let value: Value = serde_json::from_slice(&body).unwrap();
        let value = value.pointer("/entry/0/changes/0/value").unwrap();
        let graph = &meter.house.graph;
        if case == "fbe/install" {
            graph.set_install(Install::from_webhook(value).unwrap());
        } else {
            let [business, manager] =
                ["business_id", "business_manager_id"].map(|name| value[name].as_str().unwrap());
            graph.remove_install(business, manager);
        }
        let signature = sign(&APP_SECRET.into(), &body);
        let headers = [("x-hub-signature-256", signature.as_str())];
        let event = signer::gateway_event("POST", "/fbe/webhook", "", &headers, &body, false);
        meter.webhook("FbeInstallWebhookFunction", event).await;
        meter.stream("sync").await;
        // Graph is asked once more after five minutes.
        meter.tick_after(6).await;
        rows.push(meter.row(job).await);
    }
    rows
}

async fn erased(meter: &mut Meter) -> String {
    meter.house.graph.add_person_on_page("app-scoped-1", PAGE, "7001");
    let payload = json!({"algorithm": "HMAC-SHA256", "user_id": "app-scoped-1",
                         "issued_at": meter.house.clock.now().as_second()});
    let body = format!(
        "signed_request={}",
        signed_request::sign(&APP_SECRET.into(), &payload)
    );
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let event = signer::gateway_event("POST", "/meta/deletion", "", &headers, body.as_bytes(), false);
    meter.webhook("DataDeletionFunction", event).await;
    for minutes in [2, 11] {
        meter.tick_after(minutes).await;
    }
    let profile = meter.house.braze.profile("user-42");
    assert!(profile.is_none_or(|profile| profile.attribute("messenger_id").is_none()));
    meter.row("a person who is linked to a user is erased").await
}

/// The rows of the table in the documents.
fn documented() -> Vec<&'static str> {
    let documents = include_str!("../../../docs/operations.md").lines();
    let table = documents.skip_while(|line| !line.starts_with("| dollars per million |"));
    table.skip(2).take_while(|line| line.starts_with('|')).collect()
}

#[tokio::test]
async fn the_costs_in_the_documents_are_those_of_the_calls_that_are_made() {
    let rows = rows().await;
    assert!(
        rows == documented(),
        "docs/operations.md should say:\n{}",
        rows.join("\n")
    );
}
