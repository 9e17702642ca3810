//! Every function that writes of a person, around the tables, secrets and fakes of [`testkit::house`].

use fbe_install_webhook::App as Fbe;
use jiff::{SignedDuration, Timestamp};
use lambda_http::{Body, http};
use messenger_events::App as Messenger;
use messenger_send::App as Send;
use outbox_dispatch::App as Dispatch;
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::config::Env;
use shared::erase::{Erasures, Order, Receipt, Source, Target};
use shared::messenger::link::mint;
use shared::outbox::Outbox;
use shared::webhook::signature::sign;
use testkit::house::{APP_SECRET, House as Parts, INBOUND_TOKEN, LINK_KEY, PAGE};
use whatsapp_relay::App as Relay;

/// The person, by everything that names them.
pub(crate) const PSID: &str = "24680135790246";
pub(crate) const USER: &str = "ana-of-the-tests";
pub(crate) const PHONE: &str = "+15550001234";
const NAME: &str = "Ana Beispiel";
const TEXT: &str = "my private words";
const USER_REF: &str = "checkbox-of-ana";

/// What must not be found once they are erased.
pub(crate) const TRACES: [&str; 6] = [PSID, USER, "5550001234", NAME, TEXT, USER_REF];

/// A confirmation code.
pub(crate) const CODE: &str = "0123456789abcdef0123456789abcdef";

const TABLES: [&str; 4] = [
    "ContactsTable",
    "ConversationsTable",
    "OutboxTable",
    "InstallsTable",
];

pub(crate) struct House {
    pub(crate) parts: Parts,
    pub(crate) messenger: Messenger,
    send: Send,
    relay: Relay,
    fbe: Fbe,
    pub(crate) sync: Dispatch,
    pub(crate) answers: Dispatch,
    pub(crate) erasures: Erasures,
}

impl House {
    pub(crate) async fn start(in_braze: &str) -> Self {
        let settings = [
            ("ERASE_IN_BRAZE", in_braze),
            ("ERASE_KEYWORDS", "DELETE MY DATA"),
            ("MESSENGER_EVENTS", "message,send_failed"),
            ("EXTERNAL_SYSTEM_TIMEOUT_SECONDS", "5"),
            ("OPENAI_MODEL", "model"),
            ("OPENAI_SYSTEM_PROMPT", "You answer for a shop."),
        ];
        let parts = Parts::with(&settings).await.unwrap();
        let (secrets, dynamodb) = (parts.aws.secrets_manager(), parts.aws.dynamodb());
        let clock = || parts.clock.clone();
        let events =
            Env::new(parts.lookup("MessengerEventsFunction")).finish(messenger_events::Settings::read);
        let send = Env::new(parts.lookup("MessengerSendFunction")).finish(messenger_send::Settings::read);
        let relay = Env::new(parts.lookup("WhatsAppRelayFunction")).finish(whatsapp_relay::Settings::read);
        let fbe =
            Env::new(parts.lookup("FbeInstallWebhookFunction")).finish(fbe_install_webhook::Settings::read);
        let lane = |function: &str| {
            let settings = Env::new(parts.lookup(function)).finish(outbox_dispatch::Settings::read);
            Dispatch::new(settings.unwrap(), &secrets, &dynamodb, None, clock())
        };
        Self {
            messenger: Messenger::new(events.unwrap(), &secrets, &dynamodb, clock()),
            send: Send::new(send.unwrap(), &secrets, &dynamodb, clock()),
            relay: Relay::new(relay.unwrap(), &secrets, &dynamodb, clock()),
            fbe: Fbe::new(fbe.unwrap(), &secrets, &dynamodb, clock()),
            sync: lane("DispatchSyncFunction"),
            answers: lane("DispatchRelayFunction"),
            erasures: Erasures::new(Outbox::new(
                dynamodb.clone(),
                parts.table("OutboxTable").to_owned(),
                clock(),
            )),
            parts,
        }
    }

    pub(crate) fn later(&self, duration: SignedDuration) {
        self.parts.later(duration);
    }

    /// Delivers items of the page.
    pub(crate) async fn receive(&self, body: &str) -> u16 {
        let request = http::Request::post("/messenger/webhook")
            .header(
                "x-hub-signature-256",
                sign(&SecretString::from(APP_SECRET), body.as_bytes()),
            )
            .body(Body::Text(body.to_owned()))
            .unwrap();
        Box::pin(self.messenger.handle(request)).await.status().as_u16()
    }

    /// Delivers the install of a business that happened at `at`.
    pub(crate) async fn install(&self, at: Timestamp) -> u16 {
        let body = include_str!("../../../../../events/payloads/fbe/install.json");
        let body = body.replace("1795251600", &at.as_second().to_string());
        let request = http::Request::post("/fbe/webhook")
            .header(
                "x-hub-signature-256",
                sign(&SecretString::from(APP_SECRET), body.as_bytes()),
            )
            .body(Body::Text(body))
            .unwrap();
        Box::pin(self.fbe.handle(request)).await.status().as_u16()
    }

    /// The body of one item of the person, now.
    pub(crate) fn item(&self, fields: &Value) -> String {
        let at = self.parts.clock.now().as_millisecond();
        let mut item = json!({"sender": {"id": PSID}, "recipient": {"id": PAGE}, "timestamp": at});
        for (name, value) in fields.as_object().unwrap() {
            item[name] = value.clone();
        }
        json!({"object": "page", "entry": [{"id": PAGE, "time": at, "messaging": [item]}]}).to_string()
    }

    pub(crate) fn message(&self, mid: &str, text: &str) -> String {
        self.item(&json!({"message": {"mid": mid, "text": text}}))
    }

    fn token(&self, minutes: i64) -> String {
        let life = SignedDuration::from_mins(minutes);
        mint(&SecretString::from(LINK_KEY), USER, life, self.parts.clock.now()).unwrap()
    }

    /// Everything by which the person shows up at Messenger: what comes to the webhook, in order.
    pub(crate) fn acts(&self) -> Vec<String> {
        let at = self.parts.clock.now().as_millisecond();
        let checkbox = json!({"recipient": {"id": PAGE}, "timestamp": at,
            "optin": {"ref": self.token(20), "user_ref": USER_REF}});
        let checkbox =
            json!({"object": "page", "entry": [{"id": PAGE, "time": at, "messaging": [checkbox]}]});
        let referral = json!({"ref": self.token(15), "source": "SHORTLINK", "type": "OPEN_THREAD"});
        let prior = json!({"source": "checkbox_plugin", "identifier": USER_REF});
        vec![
            checkbox.to_string(),
            self.item(&json!({"referral": referral})),
            self.item(&json!({"message": {"mid": "m-1", "text": TEXT}, "prior_message": prior})),
            self.message("m-2", TEXT),
        ]
    }

    /// Braze forwards what the person writes on WhatsApp.
    pub(crate) async fn writes(&self, dispatch_id: &str) -> (u16, Value) {
        let body = json!({"user_id": USER, "phone_number": PHONE, "message": TEXT, "dispatch_id": dispatch_id,
            "profile_name": NAME});
        let request = http::Request::post("/whatsapp/inbound")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {INBOUND_TOKEN}"));
        let request = request.body(Body::Text(body.to_string())).unwrap();
        read(&self.relay.handle(request).await)
    }

    /// A campaign of Braze's writes to the person.
    pub(crate) async fn campaign(&self, dispatch_id: &str) -> (u16, Value) {
        let body = json!({"psid": PSID, "text": TEXT, "dispatch_id": dispatch_id});
        let request = http::Request::post("/messenger/send")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {INBOUND_TOKEN}"));
        let request = request.body(Body::Text(body.to_string())).unwrap();
        read(&self.send.handle(request).await)
    }

    pub(crate) async fn order(&self, target: Target) {
        let order = Order::new(target, Source::Operator, self.parts.clock.now());
        assert!(self.erasures.order_anew(CODE, &order).await.unwrap());
    }

    pub(crate) async fn receipt(&self) -> Receipt {
        self.erasures.receipt(CODE).await.unwrap().unwrap()
    }

    /// The ticks of both lanes, once new items are the schedule's.
    pub(crate) async fn tick(&self) {
        self.later(SignedDuration::from_secs(31));
        let until = self.parts.clock.now() + SignedDuration::from_mins(15);
        self.sync.handle_until(json!({}), until).await.unwrap();
        self.answers.handle_until(json!({}), until).await.unwrap();
    }

    /// Ticks until the erasure is done, as the schedule does for half an hour.
    pub(crate) async fn finish(&self) -> Receipt {
        for _ in 0..30 {
            self.tick().await;
            let receipt = self.receipt().await;
            if receipt.status.is_final() {
                return receipt;
            }
            self.later(SignedDuration::from_secs(60));
        }
        panic!("the erasure is not done: {:?}", self.receipt().await);
    }

    /// Where the person is still named: tables and profiles.
    pub(crate) async fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        let mut look = |place: String, shown: &str| {
            let found = TRACES.iter().filter(|trace| shown.contains(**trace));
            traces.extend(found.map(|trace| format!("{place}: {trace} in {shown}")));
        };
        for table in TABLES {
            for item in self.parts.items(table).await.unwrap() {
                look(table.to_owned(), &format!("{item:?}"));
            }
        }
        for profile in self.parts.braze.profiles() {
            look("Braze".to_owned(), &format!("{profile:?}"));
        }
        traces
    }
}

fn read(answer: &shared::webhook::Answer) -> (u16, Value) {
    let Body::Text(body) = answer.body() else {
        panic!("not a text")
    };
    (answer.status().as_u16(), serde_json::from_str(body).unwrap())
}
