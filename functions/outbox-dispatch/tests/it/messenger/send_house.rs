//! The functions through which a message to a person goes, from Braze's campaign to Meta.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::SignedDuration;
use lambda_http::{Body, Request, request};
use outbox_dispatch::App as Dispatch;
use serde_json::{Value, json};
use shared::config::Env;
use testkit::house::{House, INBOUND_TOKEN, LINK_KEY, PAGE};

/// A message in the outbox.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) subject: String,
    pub(super) event_key: String,
    pub(super) status: String,
    pub(super) reason: String,
}

pub(super) struct Stack {
    pub(super) house: House,
    pub(super) events: messenger_events::App,
    pub(super) send: messenger_send::App,
    pub(super) dispatch: Dispatch,
}

impl Stack {
    pub(super) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(super) async fn with(settings: &[(&str, &str)]) -> Self {
        let house = House::with(settings).await.unwrap();
        let (secrets, dynamodb) = (house.aws.secrets_manager(), house.aws.dynamodb());
        let clock = || house.clock.clone();
        let settings =
            Env::new(house.lookup("MessengerEventsFunction")).finish(messenger_events::Settings::read);
        let events = messenger_events::App::new(settings.unwrap(), &secrets, &dynamodb, clock());
        let settings = Env::new(house.lookup("MessengerSendFunction")).finish(messenger_send::Settings::read);
        let send = messenger_send::App::new(settings.unwrap(), &secrets, &dynamodb, clock());
        let dispatch = dispatcher(&house);
        Self {
            house,
            events,
            send,
            dispatch,
        }
    }

    pub(super) async fn acts(&self, page: &str, psid: &str, key: &str, value: Value) {
        self.receives(&self.house.act(page, psid, key, value)).await;
    }

    /// Meta's webhook comes.
    pub(super) async fn receives(&self, event: &Value) {
        let request = request::from_str(&event.to_string()).unwrap();
        assert_eq!(Box::pin(self.events.handle(request)).await.status(), 200);
    }

    pub(super) async fn writes(&self, psid: &str) {
        self.writes_to(PAGE, psid).await;
    }

    pub(super) async fn writes_to(&self, page: &str, psid: &str) {
        let mid = format!("m_{psid}_{}", self.house.clock.now().as_millisecond());
        self.acts(page, psid, "message", json!({"mid": mid, "text": "hi"}))
            .await;
    }

    /// Somebody becomes known as a user.
    pub(super) async fn is(&self, psid: &str, user: &str) {
        let minutes = SignedDuration::from_mins(15);
        let token = shared::messenger::link::mint(&LINK_KEY.into(), user, minutes, self.house.clock.now());
        let referral = json!({"ref": token.unwrap(), "source": "SHORTLINK"});
        self.acts(PAGE, psid, "referral", referral).await;
    }

    pub(super) async fn sends(&self, psid: &str, more: Value) -> (u16, Value) {
        let mut body = json!({"psid": psid, "page_id": PAGE, "text": "hello"});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.posts(&body).await
    }

    pub(super) async fn posts(&self, body: &Value) -> (u16, Value) {
        let request: Request = lambda_http::http::Request::post("/messenger/send")
            .header("authorization", format!("Bearer {INBOUND_TOKEN}"))
            .body(Body::Text(body.to_string()))
            .unwrap();
        let answer = self.send.handle(request).await;
        let Body::Text(text) = answer.body() else {
            panic!("not a text")
        };
        (answer.status().as_u16(), serde_json::from_str(text).unwrap())
    }

    pub(super) async fn tick(&self) {
        self.house.later(SignedDuration::from_secs(31));
        let until = self.house.clock.now() + SignedDuration::from_mins(2);
        self.dispatch.handle_until(json!({}), until).await.unwrap();
    }

    /// The messages in the outbox.
    pub(super) async fn messages(&self) -> Vec<Message> {
        let items = self.house.items("OutboxTable").await.unwrap().into_iter();
        let text = |item: &HashMap<String, AttributeValue>, name: &str| {
            let text = item.get(name).and_then(|value| value.as_s().ok());
            text.cloned().unwrap_or_default()
        };
        items
            .filter(|item| text(item, "event_key").starts_with("send#"))
            .map(|item| Message {
                subject: text(&item, "subject"),
                event_key: text(&item, "event_key"),
                status: text(&item, "status"),
                reason: text(&item, "reason"),
            })
            .collect()
    }

    /// Status and reason of each message in the outbox.
    pub(super) async fn states(&self) -> Vec<(String, String)> {
        let messages = self.messages().await.into_iter();
        let mut states: Vec<_> = messages.map(|message| (message.status, message.reason)).collect();
        states.sort();
        states
    }

    pub(super) fn attribute(&self, user: &str, name: &str) -> Option<Value> {
        let profiles = self.house.braze.profiles().into_iter();
        let mut profile = profiles.filter(|profile| profile.external_id.as_deref() == Some(user));
        profile.next()?.attribute(name).cloned()
    }
}

/// A process that sends what waits.
pub(super) fn dispatcher(house: &House) -> Dispatch {
    let settings = Env::new(house.lookup("DispatchSyncFunction")).finish(outbox_dispatch::Settings::read);
    let (secrets, dynamodb) = (house.aws.secrets_manager(), house.aws.dynamodb());
    Dispatch::new(settings.unwrap(), &secrets, &dynamodb, None, house.clock.clone())
}

/// A batch that has these messages settled.
pub(super) fn batch(messages: &[Message]) -> Value {
    let record = |message: &Message| {
        let wake_up = json!({"subject": message.subject, "event_keys": [message.event_key]});
        json!({"eventSource": "aws:sqs", "messageId": "1", "body": wake_up.to_string()})
    };
    json!({"Records": messages.iter().map(record).collect::<Vec<_>>()})
}
