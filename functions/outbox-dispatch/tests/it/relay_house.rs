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
use testkit::braze::{FakeBraze, Options};
use testkit::external_system::{ExternalSystem, Options as SystemOptions};
use testkit::lambda::{
    Gateway, GatewayRoute, Handler, QueueDriver, QueueSource, StreamDriver, StreamSource, handler,
};
use testkit::signer::standard_webhooks_headers;
use testkit::template::Template;
use testkit::time::start;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use whatsapp_relay::App as Relay;

pub(crate) const SIGNING_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub(crate) const TOKEN: &str = "inbound-token";
pub(crate) const EXTERNAL_TOKEN: &str = "external-token";

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
    queue_url: String,
    streams: Vec<StreamDriver>,
    queues: Vec<QueueDriver>,
    drivers: Option<DropGuard>,
}

impl RelayHouse {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A house whose clock stands still, where somebody has to tick.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::build(settings, Clock::fixed(start())).await
    }

    /// A house whose clock runs, and whose workers are woken as the template has it: by the table's stream through
    /// the queue.
    pub(crate) async fn live(settings: &[(&str, &str)]) -> Self {
        let mut house = Self::build(settings, Clock::starting_at(start())).await;
        let stop = CancellationToken::new();
        let waker = house.template.function("DispatchSyncFunction").unwrap();
        let relays = |mapping: &&testkit::template::Stream| mapping.filters[0].contains("wakes");
        let source = StreamSource {
            table: house.template.table("OutboxTable").unwrap().clone(),
            mapping: waker.streams.iter().find(relays).unwrap().clone(),
            poll: Duration::from_millis(30),
            handler: invoked(house.waker(), house.clock.clone()),
            timeout: None,
        };
        let stream = StreamDriver::start(house.aws.streams(), source, stop.clone());
        house.streams.push(stream.await.unwrap());
        let function = house.template.function("DispatchRelayFunction").unwrap();
        let source = QueueSource {
            url: house.queue_url.clone(),
            mapping: function.queues[0].clone(),
            handler: invoked(house.dispatch.clone(), house.clock.clone()),
            timeout: None,
        };
        house
            .queues
            .push(QueueDriver::start(house.aws.sqs(), source, stop.clone()));
        house.drivers = Some(stop.drop_guard());
        house
    }

    /// The lane that wakes the relay's.
    fn waker(&self) -> Arc<Dispatch> {
        let function = self.template.function("DispatchSyncFunction").unwrap();
        let lookup = |name: &str| match name {
            "BRAZE_REST_ENDPOINT" => Some(self.braze.url()),
            "RELAY_QUEUE_URL" => Some(self.queue_url.clone()),
            name => function.environment.get(name).cloned(),
        };
        let settings = Env::new(lookup).finish(outbox_dispatch::Settings::read).unwrap();
        let (secrets, dynamodb) = (self.aws.secrets_manager(), self.aws.dynamodb());
        let queue = Some(self.aws.sqs());
        let waker = Dispatch::with_queue(settings, &secrets, &dynamodb, queue, self.clock.clone());
        Arc::new(waker)
    }

    async fn build(settings: &[(&str, &str)], clock: Clock) -> Self {
        let aws = Arc::new(EmbeddedAws::in_memory().await.unwrap());
        let template = Template::parse(include_str!("../../../../template.yaml")).unwrap();
        aws.create_tables(&template).await.unwrap();
        let queue_url = aws
            .create_queues(&template)
            .await
            .unwrap()
            .remove("RelayQueue")
            .unwrap();
        aws.put_secret("relay", &relay_secret(TOKEN, None)).await.unwrap();
        aws.put_secret("braze", &json!({"api_key": "key"})).await.unwrap();
        let braze = FakeBraze::start(Options::new("key")).await.unwrap();
        let options = SystemOptions::new(SIGNING_SECRET)
            .bearer_token(EXTERNAL_TOKEN)
            .openai_api_key("openai-key")
            .clock(&clock);
        let system = ExternalSystem::start(options).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let reply_url = format!("{base}/whatsapp/reply");

        let name = |logical_id: &str| template.table(logical_id).unwrap().name.clone();
        let (conversations, outbox_table) = (name("ConversationsTable"), name("OutboxTable"));
        let (braze_url, system_url) = (braze.url(), system.url());
        let openai = settings.contains(&("EXTERNAL_SYSTEM_KIND", "openai"));
        let openai_url = system.openai_url();
        let mut pairs = settings.to_vec();
        pairs.extend([
            ("RELAY_SECRET_ID", "relay"),
            ("BRAZE_SECRET_ID", "braze"),
            ("CONVERSATIONS_TABLE", conversations.as_str()),
            ("OUTBOX_TABLE", outbox_table.as_str()),
            ("BRAZE_REST_ENDPOINT", braze_url.as_str()),
            (
                "EXTERNAL_SYSTEM_URL",
                if openai {
                    openai_url.as_str()
                } else {
                    system_url.as_str()
                },
            ),
            ("EXTERNAL_SYSTEM_TIMEOUT_SECONDS", "5"),
            ("REPLY_CAMPAIGN_ID", "reply-campaign"),
            ("OPENAI_MODEL", "model"),
            ("OPENAI_SYSTEM_PROMPT", "You answer for a shop."),
            ("REPLY_URL", reply_url.as_str()),
            ("RELAY_QUEUE_URL", queue_url.as_str()),
            ("LANE", "relay"),
        ]);
        let (secrets, dynamodb) = (aws.secrets_manager(), aws.dynamodb());
        let settings = Env::from_pairs(&pairs)
            .finish(whatsapp_relay::Settings::read)
            .unwrap();
        let relay = Arc::new(Relay::new(settings, &secrets, &dynamodb, clock.clone()));
        let settings = Env::from_pairs(&pairs)
            .finish(outbox_dispatch::Settings::read)
            .unwrap();
        let queue = Some(aws.sqs());
        let dispatch = Dispatch::with_queue(settings, &secrets, &dynamodb, queue, clock.clone());
        let dispatch = Arc::new(dispatch);
        let stop = CancellationToken::new();
        let gateway = Gateway::serve(
            listener,
            vec![reply_route(relay.clone())],
            clock.clone(),
            stop.clone(),
        )
        .unwrap();
        aws.reset_calls();
        Self {
            aws,
            braze,
            system,
            relay,
            dispatch,
            clock,
            reply_url,
            outbox_table,
            template,
            dispatches: 0.into(),
            _stop: stop.drop_guard(),
            _gateway: gateway,
            queue_url: queue_url.clone(),
            streams: Vec::new(),
            queues: Vec::new(),
            drivers: None,
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

    /// The row of a conversation is lost, as in a table that was restored.
    pub(crate) async fn forgets_conversation(&self, conversation: &str) {
        let table = &self.template.table("ConversationsTable").unwrap().name;
        let gone = self.aws.dynamodb().delete_item().table_name(table);
        let gone = gone.key("conversation_id", AttributeValue::S(conversation.to_owned()));
        let gone = gone.key("sort_key", AttributeValue::S("conversation".to_owned()));
        gone.send().await.unwrap();
    }

    /// Items of a conversation are as another version would have written them.
    pub(crate) async fn spoils(&self, conversation: &str, prefix: &str) {
        let table = &self.template.table("ConversationsTable").unwrap().name;
        let dynamodb = self.aws.dynamodb();
        let found = dynamodb
            .query()
            .table_name(table)
            .key_condition_expression("conversation_id = :id AND begins_with(sort_key, :prefix)")
            .expression_attribute_values(":id", AttributeValue::S(conversation.to_owned()))
            .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned()));
        for mut item in found.send().await.unwrap().items.unwrap() {
            for name in ["facts", "role"] {
                if item.contains_key(name) {
                    item.insert(
                        name.to_owned(),
                        AttributeValue::S("of another version".to_owned()),
                    );
                }
            }
            let put = dynamodb.put_item().table_name(table).set_item(Some(item));
            put.send().await.unwrap();
        }
    }

    /// So many messages wait, beside what waits already.
    pub(crate) async fn waiting(&self, conversation: &str, messages: usize) {
        use shared::outbox::{Kind, OutboxItem};
        use shared::whatsapp::conversation::Conversation;
        use shared::whatsapp::message::ConversationId;
        use shared::whatsapp::plan::Plan;
        use shared::whatsapp::table::{Committed, Conversations};

        let table = self.template.table("ConversationsTable").unwrap().name.clone();
        let conversations = Conversations::new(self.aws.dynamodb(), table, self.outbox(), self.clock.clone());
        let id = ConversationId::parse(conversation).unwrap();
        let user = conversation.strip_prefix("user:").unwrap();
        self.says(user, "message 0").await;
        let stored: Conversation = conversations.read(&id).await.unwrap().unwrap();
        let numbers: Vec<usize> = (1..messages).collect();
        for numbers in numbers.chunks(45) {
            let turn = |number: &usize| {
                let at = self.clock.now() + SignedDuration::from_millis(i64::try_from(*number).unwrap());
                serde_json::from_value(json!({
                    "id": format!("m{number:05}"), "at": at, "sequence": number, "role": "user",
                    "text": format!("message {number}"), "status": "pending",
                }))
                .unwrap()
            };
            let item = |number: &usize| OutboxItem {
                subject: conversation.to_owned(),
                event_key: format!("message#m{number:05}"),
                kind: Kind::RelayMessage,
                payload: json!({}),
                not_before: None,
            };
            let plan = Plan {
                conversation: stored.clone(),
                guards: Vec::new(),
                handed_over: Vec::new(),
                turns: numbers.iter().map(turn).collect(),
                outbox: numbers.iter().map(item).collect(),
            };
            assert_eq!(conversations.commit_beside(&plan).await.unwrap(), Committed::Yes);
        }
    }

    /// A message of the queue that names all that waits of a conversation.
    pub(crate) async fn wakes(&self, conversation: &str) -> Value {
        let pending: Vec<String> = self
            .rows("pending")
            .await
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        let body = json!({"subject": conversation, "event_keys": pending}).to_string();
        let event = json!({"Records": [{"messageId": "1", "body": body, "eventSource": "aws:sqs"}]});
        self.dispatch.handle_until(event, self.until()).await.unwrap()
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

/// A dispatcher as Lambda invokes it.
fn invoked(dispatch: Arc<Dispatch>, clock: Clock) -> Handler {
    handler(move |event| {
        let (dispatch, clock) = (dispatch.clone(), clock.clone());
        async move {
            let until = clock.now() + SignedDuration::from_mins(4);
            dispatch
                .handle_until(event, until)
                .await
                .map_err(anyhow::Error::from_boxed)
        }
    })
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
        "external_system_token": EXTERNAL_TOKEN, "openai_api_key": "openai-key",
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
