//! The functions of the Messenger job, wired to the embedded AWS and the fake Braze.

use jiff::{SignedDuration, Timestamp};
use lambda_http::{Body, Request};
use messenger_events::App as Messenger;
use outbox_dispatch::App as Dispatch;
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::config::Env;
use shared::messenger::link::mint;
use shared::outbox::Lane;
use shared::outbox::Outbox;
use shared::webhook::signature::sign;
use testkit::aws::EmbeddedAws;
use testkit::braze::FakeBraze;
use testkit::house::{APP_SECRET, LINK_KEY};

pub(crate) const PAGE: &str = "101332922643063";

pub(crate) struct House {
    pub(crate) aws: EmbeddedAws,
    pub(crate) braze: FakeBraze,
    pub(crate) messenger: Messenger,
    pub(crate) dispatch: Dispatch,
    pub(crate) clock: Clock,
    pub(crate) outbox_table: String,
    messages: std::cell::Cell<u64>,
}

impl House {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let house = testkit::house::House::with(settings).await.unwrap();
        let outbox_table = house.table("OutboxTable").to_owned();
        let settings =
            Env::new(house.lookup("MessengerEventsFunction")).finish(messenger_events::Settings::read);
        let dispatch = Env::new(house.lookup("DispatchSyncFunction")).finish(outbox_dispatch::Settings::read);
        let (secrets, dynamodb) = (house.aws.secrets_manager(), house.aws.dynamodb());
        let messenger = Messenger::new(settings.unwrap(), &secrets, &dynamodb, house.clock.clone());
        let dispatch = Dispatch::new(dispatch.unwrap(), &secrets, &dynamodb, None, house.clock.clone());
        Self {
            aws: house.aws,
            braze: house.braze,
            messenger,
            dispatch,
            clock: house.clock,
            outbox_table,
            messages: 0.into(),
        }
    }

    pub(crate) fn later(&self, duration: SignedDuration) {
        self.clock.set(self.clock.now() + duration);
    }

    /// Delivers items of one page as Meta does, and gives the status.
    pub(crate) async fn receive(&self, items: &[Value]) -> u16 {
        let body = json!({"object": "page", "entry": [{
            "id": PAGE, "time": self.clock.now().as_millisecond(), "messaging": items,
        }]});
        self.post(&body.to_string()).await
    }

    pub(crate) async fn post(&self, body: &str) -> u16 {
        let request: Request = lambda_http::http::Request::post("/messenger/webhook")
            .header(
                "x-hub-signature-256",
                sign(&SecretString::from(APP_SECRET), body.as_bytes()),
            )
            .body(Body::Text(body.to_owned()))
            .unwrap();
        Box::pin(self.messenger.handle(request)).await.status().as_u16()
    }

    pub(crate) fn item(&self, psid: &str, key: &str, value: Value) -> Value {
        let mut item = json!({
            "sender": {"id": psid}, "recipient": {"id": PAGE}, "timestamp": self.clock.now().as_millisecond(),
        });
        item[key] = value;
        item
    }

    pub(crate) fn message(&self, psid: &str) -> Value {
        self.messages.set(self.messages.get() + 1);
        let mid = format!("m_{psid}_{}", self.messages.get());
        self.item(psid, "message", json!({"mid": mid, "text": "hello"}))
    }

    pub(crate) fn referral(&self, psid: &str, user: &str) -> Value {
        // A token links one contact, so each gets one of its own: they differ by when they expire.
        let own = psid.bytes().map(i64::from).sum();
        let token = mint(
            &SecretString::from(LINK_KEY),
            user,
            SignedDuration::from_mins(15) + SignedDuration::from_secs(own),
            self.clock.now(),
        );
        let reference = token.unwrap();
        self.item(
            psid,
            "referral",
            json!({"ref": reference, "source": "SHORTLINK", "type": "OPEN_THREAD"}),
        )
    }

    /// The schedule's tick, once new items are its own.
    pub(crate) async fn tick(&self) -> Value {
        self.later(SignedDuration::from_secs(31));
        let until = self.clock.now() + SignedDuration::from_mins(15);
        self.dispatch.handle_until(json!({}), until).await.unwrap()
    }

    /// Ticks until nothing is pending, an hour apart.
    pub(crate) async fn drain(&self) {
        for _ in 0..40 {
            self.tick().await;
            if self.pending().await == 0 {
                return;
            }
            self.later(SignedDuration::from_hours(1));
        }
        panic!("the outbox is not drained");
    }

    pub(crate) async fn rows(&self, status: &str) -> usize {
        let scan = self
            .aws
            .dynamodb()
            .scan()
            .table_name(&self.outbox_table)
            .filter_expression("#status = :status")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(
                ":status",
                aws_sdk_dynamodb::types::AttributeValue::S(status.into()),
            )
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>()
            .await;
        scan.unwrap().len()
    }

    /// Why the one dead item was given up.
    pub(crate) async fn reason(&self) -> String {
        let outbox = Outbox::new(self.aws.dynamodb(), self.outbox_table.clone(), self.clock.clone());
        let mut dead = outbox.list_dead(Lane::Sync, 10).await.unwrap();
        assert_eq!(dead.len(), 1);
        dead.remove(0).reason.unwrap()
    }

    /// What the outbox's stream has brought so far, as Lambda hands it over.
    pub(crate) async fn stream(&self) -> Value {
        let streams = self.aws.streams();
        let list = streams.list_streams().table_name(&self.outbox_table);
        let arn = list.send().await.unwrap().streams()[0]
            .stream_arn()
            .unwrap()
            .to_owned();
        let described = streams.describe_stream().stream_arn(&arn).send().await.unwrap();
        let mut records = Vec::new();
        for shard in described.stream_description().unwrap().shards() {
            let iterator = streams
                .get_shard_iterator()
                .stream_arn(&arn)
                .shard_id(shard.shard_id().unwrap())
                .shard_iterator_type("TRIM_HORIZON".into())
                .send()
                .await
                .unwrap();
            let read = streams
                .get_records()
                .set_shard_iterator(iterator.shard_iterator)
                .send()
                .await
                .unwrap();
            records.extend(read.records.unwrap_or_default());
        }
        let records: Vec<Value> = records
            .iter()
            .enumerate()
            .map(|(number, record)| {
                let image: serde_json::Map<String, Value> = record
                    .dynamodb()
                    .unwrap()
                    .new_image()
                    .unwrap()
                    .iter()
                    .map(|(name, value)| {
                        let value = match value.as_n() {
                            Ok(number) => json!({"N": number}),
                            Err(_) => json!({"S": value.as_s().unwrap()}),
                        };
                        (name.clone(), value)
                    })
                    .collect();
                json!({
                    "eventID": "1", "eventName": "INSERT", "eventVersion": "1.1", "eventSource": "aws:dynamodb",
                    "awsRegion": "us-east-1",
                    "dynamodb": {
                        "ApproximateCreationDateTime": 1_763_719_200.0, "SequenceNumber": number.to_string(),
                        "SizeBytes": 1, "StreamViewType": "NEW_IMAGE",
                        "Keys": {"subject": image["subject"], "event_key": image["event_key"]}, "NewImage": image,
                    },
                })
            })
            .collect();
        json!({"Records": records})
    }

    pub(crate) async fn pending(&self) -> usize {
        self.rows("pending").await
    }

    /// The `messenger_id` on the alias profile of a PSID.
    pub(crate) fn alias_messenger_id(&self, psid: &str) -> Option<Value> {
        let profile = self.braze.alias_profile(&format!("messenger:{PAGE}"), psid)?;
        profile.attribute("messenger_id").cloned()
    }

    /// The `messenger_id` on a user's profile.
    pub(crate) fn messenger_id(&self, user: &str) -> Option<Value> {
        self.braze.profile(user)?.attribute("messenger_id").cloned()
    }
}

pub(crate) fn deadline(clock: &Clock) -> Timestamp {
    clock.now() + SignedDuration::from_mins(15)
}
