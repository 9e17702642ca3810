//! The functions of the WhatsApp relay, wired to the embedded AWS, the fake Braze and a fake external system.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use lambda_http::request::LambdaRequest;
use lambda_http::tower::ServiceExt as _;
use lambda_http::{Adapter, Body, Context, Error, LambdaEvent, Request, service_fn};
use outbox_dispatch::App as Dispatch;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::config::Env;
use testkit::aws::EmbeddedAws;
use testkit::braze::FakeBraze;
use testkit::external_system::ExternalSystem;
use testkit::house::OPENAI_KEY;
pub(crate) use testkit::house::{EXTERNAL_TOKEN, INBOUND_TOKEN as TOKEN, SIGNING_SECRET};
use testkit::lambda::{Gateway, GatewayRoute, StreamDriver, StreamSource, handler};
use testkit::signer::standard_webhooks_headers;
use testkit::template::Template;
use testkit::time::start;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use whatsapp_relay::App as Relay;

pub(crate) struct RelayHouse {
    pub(crate) aws: Arc<EmbeddedAws>,
    pub(crate) braze: FakeBraze,
    pub(crate) system: ExternalSystem,
    pub(crate) relay: Arc<Relay>,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) clock: Clock,
    pub(crate) reply_url: String,
    outbox_table: String,
    template: Template,
    dispatches: std::cell::Cell<u64>,
    _stop: DropGuard,
    _gateway: Gateway,
    streams: Vec<StreamDriver>,
}

impl RelayHouse {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A house whose clock stands still, where somebody has to tick.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::build(settings, Clock::fixed(start())).await
    }

    /// A house whose clock runs and whose dispatcher is woken by the table's stream.
    pub(crate) async fn live(settings: &[(&str, &str)]) -> Self {
        let mut house = Self::build(settings, Clock::starting_at(start())).await;
        let function = house.template.function("DispatchRelayFunction").unwrap();
        let (dispatch, clock) = (house.dispatch.clone(), house.clock.clone());
        let source = StreamSource {
            table: house.template.table("OutboxTable").unwrap().clone(),
            mapping: function.streams[0].clone(),
            poll: Duration::from_millis(30),
            handler: handler(move |event| {
                let (dispatch, clock) = (dispatch.clone(), clock.clone());
                async move {
                    let until = clock.now() + SignedDuration::from_mins(4);
                    dispatch
                        .handle_until(event, until)
                        .await
                        .map_err(anyhow::Error::from_boxed)
                }
            }),
            timeout: None,
        };
        let stream = StreamDriver::start(house.aws.streams(), source, CancellationToken::new());
        house.streams.push(stream.await.unwrap());
        house
    }

    async fn build(settings: &[(&str, &str)], clock: Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let reply_url = format!("{base}/whatsapp/reply");
        let mut settings = settings.to_vec();
        settings.extend([
            ("EXTERNAL_SYSTEM_TIMEOUT_SECONDS", "5"),
            ("OPENAI_MODEL", "model"),
            ("OPENAI_SYSTEM_PROMPT", "You answer for a shop."),
            ("REPLY_URL", reply_url.as_str()),
        ]);
        let house = testkit::house::House::with_clock(&settings, clock).await.unwrap();
        let relay = Env::new(house.lookup("WhatsAppRelayFunction")).finish(whatsapp_relay::Settings::read);
        let dispatch =
            Env::new(house.lookup("DispatchRelayFunction")).finish(outbox_dispatch::Settings::read);
        let (secrets, dynamodb) = (house.aws.secrets_manager(), house.aws.dynamodb());
        let outbox_table = house.table("OutboxTable").to_owned();
        let template = house.template().clone();
        let clock = house.clock;
        let relay = Arc::new(Relay::new(relay.unwrap(), &secrets, &dynamodb, clock.clone()));
        let dispatch = Arc::new(Dispatch::new(
            dispatch.unwrap(),
            &secrets,
            &dynamodb,
            clock.clone(),
        ));
        let stop = CancellationToken::new();
        let gateway = Gateway::serve(
            listener,
            vec![reply_route(relay.clone())],
            clock.clone(),
            stop.clone(),
        )
        .unwrap();
        Self {
            aws: Arc::new(house.aws),
            braze: house.braze,
            system: house.external_system,
            relay,
            dispatch,
            clock,
            reply_url,
            outbox_table,
            template,
            dispatches: 0.into(),
            _stop: stop.drop_guard(),
            _gateway: gateway,
            streams: Vec::new(),
        }
    }

    pub(crate) fn later(&self, duration: SignedDuration) {
        self.clock.set(self.clock.now() + duration);
    }

    /// Makes the profile that Braze has of whoever writes.
    pub(crate) fn knows(&self, user: &str) {
        self.braze.add_user(user, &json!({}));
    }

    /// Somebody writes, and Braze forwards it once.
    pub(crate) async fn says(&self, user: &str, text: &str) -> Value {
        self.dispatches.set(self.dispatches.get() + 1);
        let dispatch_id = format!("dispatch-{}", self.dispatches.get());
        let (status, answer) = self.forwards(user, text, &dispatch_id).await;
        assert_eq!(status, 202, "{answer}");
        answer
    }

    /// Braze forwards what somebody wrote.
    pub(crate) async fn forwards(&self, user: &str, text: &str, dispatch_id: &str) -> (u16, Value) {
        self.inbound(&body(user, text, dispatch_id), Some(TOKEN)).await
    }

    pub(crate) async fn inbound(&self, body: &str, token: Option<&str>) -> (u16, Value) {
        self.handle(inbound_request(body, token)).await
    }

    /// The external system answers later, with these headers.
    pub(crate) async fn answers(&self, body: &Value, headers: &[(&str, String)]) -> (u16, Value) {
        self.handle(reply_request(body, headers)).await
    }

    pub(crate) async fn answers_signed(&self, body: &Value, webhook_id: &str) -> (u16, Value) {
        let now = self.clock.now();
        let headers = standard_webhooks_headers(SIGNING_SECRET, webhook_id, now, body.to_string().as_bytes());
        self.answers(body, &headers.unwrap()).await
    }

    async fn handle(&self, request: Request) -> (u16, Value) {
        let answer = self.relay.handle(request).await;
        let Body::Text(body) = answer.body() else {
            panic!("not a text")
        };
        (answer.status().as_u16(), serde_json::from_str(body).unwrap())
    }

    /// The schedule's tick, once new items are its own.
    pub(crate) async fn tick(&self) -> Value {
        self.later(SignedDuration::from_secs(31));
        self.dispatch.handle_until(json!({}), self.until()).await.unwrap()
    }

    pub(crate) fn until(&self) -> Timestamp {
        self.clock.now() + SignedDuration::from_mins(15)
    }

    /// Ticks until nothing is pending, an hour apart.
    pub(crate) async fn drain(&self) {
        for _ in 0..45 {
            self.tick().await;
            if self.rows("pending").await.is_empty() {
                return;
            }
            self.later(SignedDuration::from_hours(1));
        }
        panic!("the outbox is not drained");
    }

    /// Event keys and reasons of the outbox items in a status.
    pub(crate) async fn rows(&self, status: &str) -> Vec<(String, String)> {
        let items = self
            .aws
            .dynamodb()
            .scan()
            .table_name(&self.outbox_table)
            .filter_expression("#status = :status")
            .expression_attribute_names("#status", "status")
            .expression_attribute_values(":status", AttributeValue::S(status.into()))
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>()
            .await
            .unwrap();
        let text = |item: &std::collections::HashMap<String, AttributeValue>, name: &str| {
            item.get(name)
                .and_then(|value| value.as_s().ok())
                .cloned()
                .unwrap_or_default()
        };
        let mut rows: Vec<_> = items
            .iter()
            .map(|item| (text(item, "event_key"), text(item, "reason")))
            .collect();
        rows.sort();
        rows
    }

    pub(crate) fn outbox(&self) -> shared::outbox::Outbox {
        shared::outbox::Outbox::new(self.aws.dynamodb(), self.outbox_table.clone(), self.clock.clone())
    }

    /// The partition of the index over what is due that pending items lie in, by conversation.
    pub(crate) async fn shards(&self) -> BTreeMap<String, String> {
        let scan = self.aws.dynamodb().scan().table_name(&self.outbox_table);
        let items = scan
            .into_paginator()
            .items()
            .send()
            .collect::<Result<Vec<_>, _>>();
        let text = |value: &AttributeValue| value.as_s().unwrap().clone();
        let items = items.await.unwrap();
        let pending = items.iter().filter(|item| item.contains_key("due_shard"));
        pending
            .map(|item| (text(&item["subject"]), text(&item["due_shard"])))
            .collect()
    }

    /// Everything said in a conversation is removed, as happens after a month.
    pub(crate) async fn forgets_turns(&self, conversation: &str) {
        let table = &self.template.table("ConversationsTable").unwrap().name;
        let dynamodb = self.aws.dynamodb();
        let found = dynamodb
            .query()
            .table_name(table)
            .key_condition_expression("conversation_id = :id AND begins_with(sort_key, :turn)")
            .expression_attribute_values(":id", AttributeValue::S(conversation.to_owned()))
            .expression_attribute_values(":turn", AttributeValue::S("turn#".to_owned()));
        for item in found.send().await.unwrap().items.unwrap() {
            let gone = dynamodb.delete_item().table_name(table);
            let gone = gone.key("conversation_id", item["conversation_id"].clone());
            gone.key("sort_key", item["sort_key"].clone())
                .send()
                .await
                .unwrap();
        }
    }

    /// What a person got, in order.
    pub(crate) fn got(&self, user: &str) -> Vec<String> {
        let Some(profile) = self.braze.profile(user) else {
            return Vec::new();
        };
        let messages = self.braze.sent_messages();
        let own = messages
            .iter()
            .filter(|message| message.braze_id == profile.braze_id);
        own.map(|message| {
            message.trigger_properties["external_system_msg_body"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect()
    }

    pub(crate) fn attribute(&self, user: &str, name: &str) -> Option<Value> {
        self.braze.profile(user)?.attribute(name).cloned()
    }
}

/// What Braze posts.
pub(crate) fn body(user: &str, text: &str, dispatch_id: &str) -> String {
    json!({
        "user_id": user, "phone_number": "+15551234567", "message": text, "dispatch_id": dispatch_id,
    })
    .to_string()
}

pub(crate) fn inbound_request(body: &str, token: Option<&str>) -> Request {
    let mut request =
        lambda_http::http::Request::post("/whatsapp/inbound").header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Body::Text(body.to_owned())).unwrap()
}

pub(crate) fn reply_request(body: &Value, headers: &[(&str, String)]) -> Request {
    let mut request = lambda_http::http::Request::post("/whatsapp/reply");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request.body(Body::Text(body.to_string())).unwrap()
}

pub(crate) fn relay_secret(token: &str, previous: Option<&str>) -> Value {
    json!({
        "inbound_token": token, "previous_inbound_token": previous, "signing_secret": SIGNING_SECRET,
        "external_system_token": EXTERNAL_TOKEN, "openai_api_key": OPENAI_KEY,
    })
}

/// `/whatsapp/reply` over HTTP, as API Gateway calls the function.
fn reply_route(relay: Arc<Relay>) -> GatewayRoute {
    let function = handler(move |event: Value| {
        let relay = relay.clone();
        async move {
            let request: LambdaRequest = serde_json::from_value(event)?;
            let service = service_fn(move |request: Request| {
                let relay = relay.clone();
                async move { Ok::<_, Error>(relay.handle(request).await) }
            });
            let event = LambdaEvent::new(request, Context::default());
            let answer = Adapter::from(service).oneshot(event).await;
            Ok(serde_json::to_value(answer.map_err(anyhow::Error::from_boxed)?)?)
        }
    });
    GatewayRoute {
        method: "POST".to_owned(),
        path: "/whatsapp/reply".to_owned(),
        handler: function,
        timeout: None,
    }
}
