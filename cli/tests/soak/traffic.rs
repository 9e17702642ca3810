//! What people, businesses and campaigns do, each an actor of its own with its own random numbers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bridge::payloads::{self, Sender};
use fastrand::Rng;
use futures_util::future::{BoxFuture, join_all};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::{Value, json};
use shared::messenger::link::mint;
use shared::webhook::signature::sign;
use shared::webhook::signed_request;
use testkit::graph::{Install, SentMessage};

use crate::world::{PAGE, World};

const PEOPLE: usize = 40;
const WRITERS: usize = 30;
const BUSINESSES: usize = 6;
const LEAVERS: usize = 5;

/// What the ids of those who write on WhatsApp begin with.
const WRITER: &str = "soak-writer-";

/// What must have come of it. The order of events is that of their own times.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    /// PSID → the user that the last link or unlink names.
    pub(crate) people: BTreeMap<String, Option<String>>,
    /// Events of people that were accepted, redeliveries not counted.
    pub(crate) events: usize,
    /// User → the times of what was written since the last link named them: Braze must have been told.
    pub(crate) told: Vec<(String, String)>,
    /// PSID → texts that campaigns have sent.
    pub(crate) sends: Vec<(String, String)>,
    /// The same of people who may have been erased before it left.
    pub(crate) may_be_sent: Vec<(String, String)>,
    /// User → the numbers of the messages that they wrote.
    pub(crate) written: BTreeMap<String, Vec<u32>>,
    /// Business → how often the app was installed and removed, in turn.
    pub(crate) businesses: BTreeMap<String, usize>,
    /// People whom Meta was asked to have forgotten, and what was known of them: no table may hold it.
    pub(crate) erased: usize,
    pub(crate) forgotten: Vec<String>,
    /// Requests, with those that were made again and redeliveries.
    pub(crate) requests: usize,
    pub(crate) redeliveries: usize,
    /// What no log may hold.
    pub(crate) personal: Vec<String>,
}

pub(crate) struct Traffic {
    world: Arc<World>,
    client: reqwest::Client,
    expected: Mutex<Expected>,
    late: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    seed: u64,
}

/// A request as its sender makes it, as often as it takes.
#[derive(Clone)]
struct Delivery {
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Traffic {
    pub(crate) fn new(world: Arc<World>, seed: u64) -> Self {
        Self {
            world,
            client: shared::clients::http::client(Duration::from_secs(10)),
            expected: Mutex::default(),
            late: Mutex::default(),
            seed,
        }
    }

    pub(crate) fn expected(&self) -> std::sync::MutexGuard<'_, Expected> {
        self.expected.lock().unwrap()
    }

    /// Everybody, acting until `end`.
    pub(crate) fn actors(self: &Arc<Self>, end: Instant) -> Vec<BoxFuture<'static, ()>> {
        let rng = |kind: u64, number: usize| Rng::with_seed(self.seed ^ (kind << 32) ^ number as u64);
        let mut actors: Vec<BoxFuture<'static, ()>> = Vec::new();
        for number in 0..PEOPLE {
            actors.push(Box::pin(self.clone().person(number, rng(1, number), end)));
        }
        for number in 0..WRITERS {
            actors.push(Box::pin(self.clone().writer(number, rng(2, number), end)));
        }
        for number in 0..BUSINESSES {
            actors.push(Box::pin(self.clone().business(number, rng(3, number), end)));
        }
        for number in 0..LEAVERS {
            actors.push(Box::pin(self.clone().leaver(number, rng(4, number), end)));
        }
        actors.push(Box::pin(self.clone().echoes(rng(5, 0), end)));
        actors
    }

    /// Waits for the redeliveries that are still under way.
    pub(crate) async fn deliveries_are_done(&self) {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        for delivery in join_all(late).await {
            delivery.unwrap();
        }
    }

    /// Writes on Messenger, is linked, moved and unlinked, and gets campaigns.
    async fn person(self: Arc<Self>, number: usize, mut rng: Rng, end: Instant) {
        let psid = format!("7300000000{number:06}");
        let users = ["a", "b"].map(|user| format!("soak-user-{number:03}-{user}"));
        {
            let mut expected = self.expected();
            expected.people.insert(psid.clone(), None);
            expected.personal.push(psid.clone());
            expected.personal.extend(users.clone());
        }
        let mut last = Timestamp::UNIX_EPOCH;
        let (mut count, mut written) = (0, Vec::new());
        while Instant::now() < end {
            pause(&mut rng, 6_000..24_000).await;
            // A burst, whose parts come in any order.
            let (mut burst, mut times, mut is_moved) = (Vec::new(), Vec::new(), false);
            for _ in 0..rng.usize(1..4) {
                count += 1;
                let millisecond = SignedDuration::from_millis(1);
                last = self.world.clock.now().max(last + millisecond);
                let act = match rng.u8(0..10) {
                    0..2 => {
                        is_moved = true;
                        let user = rng.choice(&users).unwrap();
                        self.expected().people.insert(psid.clone(), Some(user.clone()));
                        let key = self.secret("/link/signing_key");
                        let token = mint(&key, user, SignedDuration::from_hours(1), last).unwrap();
                        self.expected().personal.push(token.clone());
                        json!({"referral": {"ref": token, "source": "SHORTLINK", "type": "OPEN_THREAD"}})
                    }
                    2 => {
                        is_moved = true;
                        self.expected().people.insert(psid.clone(), None);
                        json!({"account_linking": {"status": "unlinked"}})
                    }
                    _ => {
                        let text = format!("what-{number:03}-wrote-{count}");
                        let mid = format!("m_soak_{number:03}_{count:05}");
                        self.expected().personal.extend([text.clone(), mid.clone()]);
                        times.push(format!("{last:.3}"));
                        json!({"message": {"mid": mid, "text": text}})
                    }
                };
                burst.push(messenger(&psid, last, &act));
            }
            self.expected().events += burst.len();
            // What comes beside a link may be told before it, of whoever they were then.
            if is_moved {
                written.clear();
            } else {
                written.append(&mut times);
            }
            rng.shuffle(&mut burst);
            let deliveries = burst
                .into_iter()
                .map(|body| self.meta("/messenger/webhook", &body));
            let deliveries: Vec<Delivery> = deliveries.collect();
            let statuses = join_all(deliveries.iter().map(|delivery| self.deliver(delivery))).await;
            assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
            for delivery in deliveries {
                self.redeliver(&delivery, &mut rng);
            }
            if rng.u8(0..5) == 0 {
                let text = format!("campaign-{number:03}-says-{count}");
                let body = json!({"psid": psid, "page_id": PAGE, "text": text,
                                  "dispatch_id": format!("dispatch-{number}-{count}")});
                self.expected().personal.push(text.clone());
                let delivery = self.bearer("/messenger/send", &body);
                match self.deliver(&delivery).await {
                    202 => {
                        self.expected().sends.push((psid.clone(), text));
                        self.redeliver(&delivery, &mut rng);
                    }
                    // Who has written nothing yet.
                    status => assert_eq!(status, 409),
                }
            }
        }
        let mut expected = self.expected();
        if let Some(user) = expected.people.get(&psid).cloned().flatten() {
            let written = written.into_iter().map(|time| (user.clone(), time));
            expected.told.extend(written);
        }
    }

    /// Writes, is linked, gets a campaign, and has Meta ask for erasure; then comes again as somebody else. Meta delivers some
    /// of what they did once more after that.
    async fn leaver(self: Arc<Self>, number: usize, mut rng: Rng, end: Instant) {
        let mut life = 0;
        while Instant::now() < end {
            pause(&mut rng, 6_000..24_000).await;
            life += 1;
            let [psid, id] = [74, 75].map(|kind| format!("{kind}{number:03}000{life:08}"));
            let user = format!("soak-leaver-{number:02}-{life:05}");
            let text = format!("leaver-{number:02}-wrote-{life:05}");
            self.world.graph.add_person_on_page(&id, PAGE, &psid);
            self.expected()
                .personal
                .extend([&psid, &id, &user, &text].map(Clone::clone));
            let now = self.world.clock.now();
            let token = mint(
                &self.secret("/link/signing_key"),
                &user,
                SignedDuration::from_hours(1),
                now,
            );
            let token = token.unwrap();
            self.expected().personal.push(token.clone());
            let acts = [
                json!({"message": {"mid": format!("m_leaver_{number}_{life}"), "text": text}}),
                json!({"referral": {"ref": token, "source": "SHORTLINK", "type": "OPEN_THREAD"}}),
            ];
            let acts = acts.map(|act| self.meta("/messenger/webhook", &messenger(&psid, now, &act)));
            let known = &acts[..rng.usize(1..=acts.len())];
            let statuses = join_all(known.iter().map(|act| self.deliver(act))).await;
            assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
            pause(&mut rng, 0..8_000).await;
            let campaign = json!({"psid": psid, "page_id": PAGE, "text": text, "dispatch_id": id});
            match self.deliver(&self.bearer("/messenger/send", &campaign)).await {
                202 => self.expected().may_be_sent.push((psid.clone(), text.clone())),
                status => assert_eq!(status, 409),
            }
            pause(&mut rng, 0..8_000).await;
            let erasure = self.deletion(&id);
            assert_eq!(self.deliver(&erasure).await, 200);
            self.redeliver(&erasure, &mut rng);
            for act in known {
                self.redeliver(act, &mut rng);
            }
            let mut expected = self.expected();
            expected.erased += 1;
            expected.forgotten.extend([psid, id, user, text]);
        }
    }

    /// Meta tells the page what it has said itself, also where the answer to that was lost.
    async fn echoes(self: Arc<Self>, mut rng: Rng, end: Instant) {
        let mut told = 0;
        while Instant::now() < end {
            pause(&mut rng, 100..900).await;
            let sent = self.world.graph.sent_messages();
            for message in sent.iter().skip(told) {
                let body = echo(message, self.world.clock.now());
                let delivery = self.meta("/messenger/webhook", &body);
                assert_eq!(self.deliver(&delivery).await, 200);
                self.redeliver(&delivery, &mut rng);
            }
            told = sent.len();
        }
    }

    /// Writes on WhatsApp, one message after the other.
    async fn writer(self: Arc<Self>, number: usize, mut rng: Rng, end: Instant) {
        let user = format!("{WRITER}{number:03}");
        let phone = format!("+1555730{number:04}");
        self.world.braze.add_user(&user, &json!({}));
        self.expected().personal.extend([user.clone(), phone.clone()]);
        let mut count = 0;
        while Instant::now() < end {
            pause(&mut rng, 1_000..16_000).await;
            count += 1;
            let text = question(&user, count);
            self.expected().personal.push(text.clone());
            let body = json!({"user_id": user, "phone_number": phone, "message": text,
                              "dispatch_id": format!("inbound-{number}-{count}")});
            let delivery = self.bearer("/whatsapp/inbound", &body);
            assert_eq!(self.deliver(&delivery).await, 202);
            let mut expected = self.expected();
            expected.written.entry(user.clone()).or_default().push(count);
            drop(expected);
            self.redeliver(&delivery, &mut rng);
        }
    }

    /// Installs the app, changes nothing, removes it, and installs it again.
    async fn business(self: Arc<Self>, number: usize, mut rng: Rng, end: Instant) {
        let business = format!("soak-shop-{number:02}");
        self.expected().personal.push(business.clone());
        let mut is_installed = false;
        let mut installs = 0;
        while Instant::now() < end {
            pause(&mut rng, 10_000..60_000).await;
            is_installed = !is_installed;
            installs += 1;
            let case = if is_installed { "install" } else { "uninstall" };
            let mut body = recorded(case);
            let entry = &mut body["entry"][0];
            // Meta tells seconds.
            entry["time"] = self.world.clock.now().as_second().into();
            let value = &mut entry["changes"][0]["value"];
            value["business_id"] = business.clone().into();
            if is_installed {
                let token = format!("EAAB-soak-{number}-{installs}");
                self.expected().personal.push(token.clone());
                value["access_token"] = token.into();
                self.world
                    .graph
                    .set_install(Install::from_webhook(value).unwrap());
            } else {
                let manager = value["business_manager_id"].as_str().unwrap();
                self.world.graph.remove_install(&business, manager);
            }
            *self.expected().businesses.entry(business.clone()).or_default() += 1;
            let delivery = self.meta("/fbe/webhook", &body.to_string());
            assert_eq!(self.deliver(&delivery).await, 200);
            self.redeliver(&delivery, &mut rng);
        }
    }

    fn secret(&self, pointer: &str) -> SecretString {
        self.world
            .secrets
            .pointer(pointer)
            .unwrap()
            .as_str()
            .unwrap()
            .into()
    }

    fn meta(&self, path: &'static str, body: &str) -> Delivery {
        let signature = sign(&self.secret("/meta/app_secret"), body.as_bytes());
        Delivery {
            path,
            headers: vec![("x-hub-signature-256", signature)],
            body: body.to_owned(),
        }
    }

    fn deletion(&self, id: &str) -> Delivery {
        let payload = json!({"algorithm": "HMAC-SHA256", "issued_at": self.world.clock.now().as_second(), "user_id": id});
        let request = signed_request::sign(&self.secret("/meta/app_secret"), &payload);
        Delivery {
            path: "/meta/deletion",
            headers: vec![("content-type", "application/x-www-form-urlencoded".to_owned())],
            body: format!("signed_request={request}"),
        }
    }

    fn bearer(&self, path: &'static str, body: &Value) -> Delivery {
        use secrecy::ExposeSecret as _;
        let token = self.secret("/relay/inbound_token");
        Delivery {
            path,
            headers: vec![
                ("authorization", format!("Bearer {}", token.expose_secret())),
                ("content-type", "application/json".to_owned()),
            ],
            body: body.to_string(),
        }
    }

    /// Sends it until it is answered with something that is not an excuse, and gives the status.
    async fn deliver(&self, delivery: &Delivery) -> u16 {
        loop {
            self.expected().requests += 1;
            let mut request = self.client.post(format!("{}{}", self.world.url(), delivery.path));
            for (name, value) in &delivery.headers {
                request = request.header(*name, value);
            }
            match request.body(delivery.body.clone()).send().await {
                Ok(answer) if !answer.status().is_server_error() => return answer.status().as_u16(),
                // The process is away, or cannot.
                _ => tokio::time::sleep(Duration::from_millis(300)).await,
            }
        }
    }

    /// Now and then it is delivered again, at once or later.
    fn redeliver(self: &Arc<Self>, delivery: &Delivery, rng: &mut Rng) {
        if rng.u8(0..5) > 0 {
            return;
        }
        self.expected().redeliveries += 1;
        let (traffic, delivery, after) = (self.clone(), delivery.clone(), rng.u64(0..5_000));
        let again = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            traffic.deliver(&delivery).await;
        });
        self.late.lock().unwrap().push(again);
    }
}

/// What a writer's message with this number says.
pub(crate) fn question(user: &str, number: u32) -> String {
    let writer = user.strip_prefix(WRITER).unwrap();
    format!("question-{writer}-{number:05}")
}

async fn pause(rng: &mut Rng, milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(rng.u64(milliseconds))).await;
}

fn messenger(psid: &str, at: Timestamp, act: &Value) -> String {
    messaging(psid, PAGE, at, act)
}

fn echo(sent: &SentMessage, at: Timestamp) -> String {
    let mut message = sent.message.clone();
    message["mid"] = sent.message_id.clone().into();
    message["is_echo"] = true.into();
    messaging(PAGE, &sent.recipient, at, &json!({ "message": message }))
}

fn messaging(sender: &str, recipient: &str, at: Timestamp, act: &Value) -> String {
    let at = at.as_millisecond();
    let mut item = json!({"sender": {"id": sender}, "recipient": {"id": recipient}, "timestamp": at});
    item.as_object_mut()
        .unwrap()
        .extend(act.as_object().unwrap().clone());
    json!({"object": "page", "entry": [{"id": PAGE, "time": at, "messaging": [item]}]}).to_string()
}

fn recorded(case: &str) -> Value {
    let name = format!("fbe/{case}");
    let payload = payloads::recorded(Sender::Fbe)
        .into_iter()
        .find(|payload| payload.name == name);
    serde_json::from_slice(&payload.unwrap().body).unwrap()
}
