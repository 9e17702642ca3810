//! The functions of the WhatsApp relay around the tables, secrets and fakes of [`testkit::house`].

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lambda_http::request::LambdaRequest;
use lambda_http::tower::ServiceExt as _;
use lambda_http::{Adapter, Body, Context, Error, LambdaEvent, Request, service_fn};
use outbox_dispatch::App as Dispatch;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::config::Env;
use testkit::house::House as Parts;
pub(crate) use testkit::house::{EXTERNAL_TOKEN, INBOUND_TOKEN as TOKEN, SIGNING_SECRET};
use testkit::lambda::{
    Gateway, GatewayRoute, Handler, QueueDriver, QueueSource, StreamDriver, StreamSource, handler,
};
use testkit::signer::standard_webhooks_headers;
use testkit::template::Stream;
use testkit::time::start;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use whatsapp_relay::App as Relay;

/// Where they are not said: a system that answers within the patience of a test, and a model.
const SETTINGS: [(&str, &str); 3] = [
    ("EXTERNAL_SYSTEM_TIMEOUT_SECONDS", "5"),
    ("OPENAI_MODEL", "model"),
    ("OPENAI_SYSTEM_PROMPT", "You answer for a shop."),
];

pub(crate) struct House {
    pub(crate) parts: Arc<Parts>,
    pub(crate) relay: Arc<Relay>,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) reply_url: String,
    queue_url: String,
    dispatches: Cell<u64>,
    _stop: DropGuard,
    _gateway: Gateway,
    streams: Vec<StreamDriver>,
    queues: Vec<QueueDriver>,
    drivers: Option<DropGuard>,
}

impl Deref for House {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl House {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A house whose clock stands still, and whose workers a test has to wake.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::build(settings, Clock::fixed(start())).await
    }

    /// A house whose clock runs, and whose workers are woken as the template has it: by the table's stream through
    /// the queue.
    pub(crate) async fn live(settings: &[(&str, &str)]) -> Self {
        Self::live_with(settings, |handler| handler).await
    }

    /// The same, with `around` around each of the two functions.
    pub(crate) async fn live_with(settings: &[(&str, &str)], around: impl Fn(Handler) -> Handler) -> Self {
        let mut house = Self::build(settings, Clock::starting_at(start())).await;
        let stop = CancellationToken::new();
        let waker = house.template().function("DispatchSyncFunction").unwrap();
        let relays = |mapping: &&Stream| mapping.filters[0].contains("wakes");
        let source = StreamSource {
            table: house.template().table("OutboxTable").unwrap().clone(),
            mapping: waker.streams.iter().find(relays).unwrap().clone(),
            poll: Duration::from_millis(30),
            handler: around(invoked(
                house.dispatcher("DispatchSyncFunction"),
                house.clock.clone(),
            )),
            timeout: None,
        };
        let stream = StreamDriver::start(house.aws.streams(), source, stop.clone());
        house.streams.push(stream.await.unwrap());
        let function = house.template().function("DispatchRelayFunction").unwrap();
        let source = QueueSource {
            url: house.queue_url.clone(),
            mapping: function.queues[0].clone(),
            handler: around(invoked(house.dispatch.clone(), house.clock.clone())),
            timeout: None,
        };
        let queue = QueueDriver::start(house.aws.sqs(), source, stop.clone());
        house.queues.push(queue);
        house.drivers = Some(stop.drop_guard());
        house
    }

    async fn build(settings: &[(&str, &str)], clock: Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let reply_url = format!("http://{}/whatsapp/reply", listener.local_addr().unwrap());
        let mut settings = settings.to_vec();
        settings.extend(SETTINGS);
        settings.push(("REPLY_URL", &reply_url));
        let parts = Arc::new(Parts::with_clock(&settings, clock).await.unwrap());
        let queues = parts.aws.create_queues(parts.template()).await;
        let queue_url = queues.unwrap().remove("RelayQueue").unwrap();
        let relay = Env::new(parts.lookup("WhatsAppRelayFunction")).finish(whatsapp_relay::Settings::read);
        let (secrets, dynamodb) = (parts.aws.secrets_manager(), parts.aws.dynamodb());
        let relay = Relay::new(relay.unwrap(), &secrets, &dynamodb, parts.clock.clone());
        let relay = Arc::new(relay);
        let stop = CancellationToken::new();
        let routes = vec![reply_route(relay.clone())];
        let gateway = Gateway::serve(listener, routes, parts.clock.clone(), stop.clone());
        let dispatch = dispatcher(&parts, &queue_url, "DispatchRelayFunction");
        parts.aws.reset_calls();
        Self {
            parts,
            relay,
            dispatch,
            reply_url,
            queue_url,
            dispatches: 0.into(),
            _stop: stop.drop_guard(),
            _gateway: gateway.unwrap(),
            streams: Vec::new(),
            queues: Vec::new(),
            drivers: None,
        }
    }

    /// One of the lanes: the relay's own, or the one that wakes it.
    fn dispatcher(&self, function: &str) -> Arc<Dispatch> {
        dispatcher(&self.parts, &self.queue_url, function)
    }

    /// Makes the profile that Braze has of whoever writes.
    pub(crate) fn knows(&self, user: &str) {
        self.braze.add_user(user, &json!({}));
    }

    /// A person writes, and Braze forwards it once.
    pub(crate) async fn says(&self, user: &str, text: &str) -> Value {
        let (status, answer) = self.forwards(user, text, &self.next_dispatch()).await;
        assert_eq!(status, 202, "{answer}");
        answer
    }

    /// A dispatch id that Braze has not used before.
    pub(crate) fn next_dispatch(&self) -> String {
        self.dispatches.set(self.dispatches.get() + 1);
        format!("dispatch-{}", self.dispatches.get())
    }

    /// Braze forwards what a person wrote.
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

    /// A message of the queue that names all that waits of a conversation.
    pub(crate) async fn wakes(&self, conversation: &str) -> Value {
        let pending = self.rows("pending").await.into_iter();
        let event = wake_up(conversation, &pending.map(|(key, _)| key).collect::<Vec<_>>());
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

fn dispatcher(parts: &Parts, queue_url: &str, function: &str) -> Arc<Dispatch> {
    let template = parts.lookup(function);
    let lookup = |name: &str| match name {
        "RELAY_QUEUE_URL" => Some(queue_url.to_owned()),
        name => template(name),
    };
    let settings = Env::new(lookup).finish(outbox_dispatch::Settings::read).unwrap();
    let (secrets, dynamodb) = (parts.aws.secrets_manager(), parts.aws.dynamodb());
    let (queue, clock) = (Some(parts.aws.sqs()), parts.clock.clone());
    Arc::new(Dispatch::new(settings, &secrets, &dynamodb, queue, clock))
}

/// A dispatcher as Lambda invokes it.
fn invoked(dispatch: Arc<Dispatch>, clock: Clock) -> Handler {
    handler(move |event| {
        let (dispatch, clock) = (dispatch.clone(), clock.clone());
        async move {
            let until = clock.now() + SignedDuration::from_mins(4);
            let answered = dispatch.handle_until(event, until).await;
            answered.map_err(anyhow::Error::from_boxed)
        }
    })
}

/// A batch of the queue with one wake-up.
pub(crate) fn wake_up(conversation: &str, event_keys: &[String]) -> Value {
    let body = json!({"subject": conversation, "event_keys": event_keys}).to_string();
    json!({"Records": [{"messageId": "1", "body": body, "eventSource": "aws:sqs"}]})
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

/// The relay's secret with other tokens of Braze.
pub(crate) fn relay_secret(token: &str, previous: Option<&str>) -> Value {
    let [.., (_, mut secret)] = testkit::house::secrets();
    secret["inbound_token"] = token.into();
    secret["previous_inbound_token"] = previous.into();
    secret
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
