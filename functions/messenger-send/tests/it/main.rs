//! `POST /messenger/send` on the embedded AWS: what is taken, and what is refused and why.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use jiff::SignedDuration;
use lambda_http::{Body, request};
use messenger_send::{App, Settings};
use rstest::rstest;
use serde_json::{Value, json};
use shared::config::Env;
use testkit::aws::Fault;
use testkit::house::{APP_SECRET, House, INBOUND_TOKEN, LINK_KEY, PAGE};
use testkit::signer::gateway_event;

struct Door {
    house: House,
    app: App,
    events: messenger_events::App,
}

impl Door {
    async fn open() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, &str)]) -> Self {
        let house = House::with(settings).await.unwrap();
        let (secrets, dynamodb) = (house.aws.secrets_manager(), house.aws.dynamodb());
        let settings = Env::new(house.lookup("MessengerSendFunction")).finish(Settings::read);
        let app = App::new(settings.unwrap(), &secrets, &dynamodb, house.clock.clone());
        let settings =
            Env::new(house.lookup("MessengerEventsFunction")).finish(messenger_events::Settings::read);
        let events = messenger_events::App::new(settings.unwrap(), &secrets, &dynamodb, house.clock.clone());
        Self { house, app, events }
    }

    /// Somebody acts on a page.
    async fn acts(&self, page: &str, psid: &str, key: &str, value: Value) {
        let event = self.house.act(page, psid, key, value);
        let request = request::from_str(&event.to_string()).unwrap();
        assert_eq!(Box::pin(self.events.handle(request)).await.status(), 200);
    }

    async fn writes(&self, psid: &str, text: &str) {
        let mid = format!("m_{psid}_{}", self.house.clock.now().as_millisecond());
        self.acts(PAGE, psid, "message", json!({"mid": mid, "text": text}))
            .await;
    }

    async fn is(&self, page: &str, psid: &str, user: &str) {
        let key = LINK_KEY.into();
        let minutes = SignedDuration::from_mins(15);
        let token = shared::messenger::link::mint(&key, user, minutes, self.house.clock.now()).unwrap();
        self.acts(
            page,
            psid,
            "referral",
            json!({"ref": token, "source": "SHORTLINK"}),
        )
        .await;
    }

    async fn posts(&self, token: &str, body: &[u8]) -> (u16, Value) {
        let headers = [
            ("authorization", &*format!("Bearer {token}")),
            ("content-type", "application/json"),
        ];
        let event = gateway_event("POST", "/messenger/send", "", &headers, body, false);
        let answer = self
            .app
            .handle(request::from_str(&event.to_string()).unwrap())
            .await;
        let Body::Text(text) = answer.body() else {
            panic!("not a text")
        };
        (answer.status().as_u16(), serde_json::from_str(text).unwrap())
    }

    async fn sends(&self, body: Value) -> (u16, Value) {
        self.posts(INBOUND_TOKEN, body.to_string().as_bytes()).await
    }

    async fn outbox(&self, kind: &str) -> usize {
        let items = self.house.items("OutboxTable").await.unwrap();
        let is_kind = |item: &&std::collections::HashMap<String, _>| {
            item.get("kind") == Some(&aws_sdk_dynamodb::types::AttributeValue::S(kind.to_owned()))
        };
        items.iter().filter(is_kind).count()
    }
}

#[tokio::test]
async fn a_dispatch_is_taken_once_for_each_person() {
    let door = Door::open().await;
    door.writes("7001", "hi").await;
    door.writes("7002", "hi").await;
    let body = |psid: &str| json!({"psid": psid, "page_id": PAGE, "text": "hello", "dispatch_id": "d"});
    let (status, first) = door.sends(body("7001")).await;
    assert_eq!((status, &first["status"]), (202, &json!("accepted")));
    let (status, again) = door.sends(body("7001")).await;
    assert_eq!((status, &again["status"]), (202, &json!("duplicate")));
    assert_eq!(again["send_id"], first["send_id"]);
    assert_eq!(door.sends(body("7002")).await.1["status"], "accepted");
    assert_eq!(door.outbox("messenger_send").await, 2);
    // Also when the window has closed since.
    door.house.later(SignedDuration::from_hours(25));
    assert_eq!(door.sends(body("7001")).await.1["status"], "duplicate");
}

#[tokio::test]
async fn of_many_requests_at_once_one_is_taken() {
    let door = Door::open().await;
    door.writes("7001", "hi").await;
    let body = json!({"psid": "7001", "page_id": PAGE, "text": "hello", "dispatch_id": "d"});
    let all = (0..10).map(|_| door.sends(body.clone()));
    let answers = futures_util::future::join_all(all).await;
    let accepted = answers
        .iter()
        .filter(|(_, answer)| answer["status"] == "accepted");
    assert_eq!(accepted.count(), 1);
    assert!(answers.iter().all(|(status, _)| *status == 202));
    assert_eq!(door.outbox("messenger_send").await, 1);
}

#[tokio::test]
async fn previews_are_taken_each_time() {
    let door = Door::open().await;
    door.writes("7001", "hi").await;
    let preview = json!({"psid": "7001", "text": "hello", "dispatch_id": "dispatch_id_for_unsent_campaign"});
    for _ in 0..2 {
        assert_eq!(door.sends(preview.clone()).await.1["status"], "accepted");
    }
    assert_eq!(door.outbox("messenger_send").await, 2);
}

#[tokio::test]
async fn a_message_is_taken_in_two_calls() {
    let door = Door::open().await;
    door.is(PAGE, "7001", "user-1").await;
    for body in [
        json!({"psid": "7001", "page_id": PAGE, "text": "hello"}),
        json!({"user_id": "user-1", "text": "hello"}),
    ] {
        door.house.aws.reset_calls();
        assert_eq!(door.sends(body).await.0, 202);
        assert_eq!(door.house.aws.dynamodb_calls().total(), 2);
    }
}

/// The index does not know an act that was noted beside the facts: before a refusal the contact is read.
#[tokio::test]
async fn nobody_is_refused_by_what_the_index_says() {
    let door = Door::with(&[("WINDOW_ATTRIBUTE", "")]).await;
    door.is(PAGE, "7001", "user-1").await;
    // Of a window that Braze is not told of nothing is decided any more.
    for hours in [1, 20, 20] {
        door.house.later(SignedDuration::from_hours(hours));
        door.writes("7001", "hi").await;
    }
    let body = json!({"user_id": "user-1", "text": "hello"});
    assert_eq!(door.sends(body.clone()).await.0, 202);
    door.house.later(SignedDuration::from_hours(25));
    let (status, answer) = door.sends(body).await;
    assert_eq!((status, &answer["error"]), (409, &json!("window_closed")));
}

#[tokio::test]
async fn a_refusal_says_why_and_leaves_nothing() {
    let door = Door::open().await;
    door.writes("7001", "hi").await;
    door.writes("7002", "STOP").await;
    let to = |psid: &str| json!({"psid": psid, "page_id": PAGE, "text": "hello"});
    let code = |answer: (u16, Value)| (answer.0, answer.1["error"].as_str().unwrap().to_owned());
    assert_eq!(
        code(door.sends(to("7009")).await),
        (404, "contact_unknown".to_owned())
    );
    assert_eq!(code(door.sends(to("7002")).await), (409, "opted_out".to_owned()));
    door.house.later(SignedDuration::from_hours(25));
    assert_eq!(
        code(door.sends(to("7001")).await),
        (409, "window_closed".to_owned())
    );
    let mut tagged = to("7001");
    tagged["messaging_type"] = "MESSAGE_TAG".into();
    tagged["tag"] = "ACCOUNT_UPDATE".into();
    assert_eq!(
        code(door.sends(tagged.clone()).await),
        (409, "tag_retired".to_owned())
    );
    assert_eq!(door.outbox("messenger_send").await, 0);
    // An agent has seven days.
    tagged["tag"] = "HUMAN_AGENT".into();
    assert_eq!(door.sends(tagged.clone()).await.0, 202);
    door.house.later(SignedDuration::from_hours(6 * 24));
    assert_eq!(code(door.sends(tagged).await), (409, "window_closed".to_owned()));
}

#[tokio::test]
async fn a_refusal_is_reported_if_that_is_asked_for() {
    let door = Door::with(&[("MESSENGER_EVENTS", "send_failed")]).await;
    door.writes("7001", "STOP").await;
    let body = json!({"psid": "7001", "text": "hello", "dispatch_id": "d", "campaign_id": "c"});
    for _ in 0..2 {
        assert_eq!(door.sends(body.clone()).await.0, 409);
    }
    assert_eq!(door.outbox("contact_event").await, 1);
}

#[tokio::test]
async fn a_user_is_reached_by_the_contact_that_was_linked_last_or_is_named() {
    let door = Door::open().await;
    door.is(PAGE, "7001", "user-1").await;
    door.house.later(SignedDuration::from_mins(1));
    door.is("202", "8001", "user-1").await;
    let subjects = async || {
        let items = door.house.items("OutboxTable").await.unwrap();
        let sends = items
            .iter()
            .filter(|item| item["event_key"].as_s().unwrap().starts_with("send#"));
        let mut subjects: Vec<String> = sends
            .map(|item| item["subject"].as_s().unwrap().clone())
            .collect();
        subjects.sort();
        subjects
    };
    assert_eq!(
        door.sends(json!({"user_id": "user-1", "text": "hello"})).await.0,
        202
    );
    assert_eq!(subjects().await, ["messenger#202#8001"]);
    let named = json!({"user_id": "user-1", "page_id": PAGE, "text": "hello"});
    assert_eq!(door.sends(named).await.0, 202);
    assert_eq!(
        subjects().await,
        [format!("messenger#{PAGE}#7001"), "messenger#202#8001".to_owned()]
    );
    // Who writes from the other one is answered there.
    door.house.later(SignedDuration::from_mins(1));
    door.writes("7001", "hi").await;
    assert_eq!(
        door.sends(json!({"user_id": "user-1", "text": "hi"})).await.0,
        202
    );
    let to_first = subjects().await.iter().filter(|to| to.ends_with("#7001")).count();
    assert_eq!(to_first, 2);
    let other = json!({"user_id": "user-2", "text": "hello"});
    assert_eq!(door.sends(other).await.0, 404);
    // Unlinked, the contact is nobody's.
    door.house.later(SignedDuration::from_mins(1));
    door.acts("202", "8001", "account_linking", json!({"status": "unlinked"}))
        .await;
    assert_eq!(
        door.sends(json!({"user_id": "user-1", "page_id": "202", "text": "x"}))
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn a_psid_that_several_pages_know_needs_a_page() {
    let door = Door::open().await;
    let meta = json!({
        "app_id": "1", "app_secret": APP_SECRET, "verify_token": "v",
        "page_access_tokens": {PAGE: "a", "202": "b"},
    });
    door.house.write_secret("MetaSecret", &meta).await.unwrap();
    for page in [PAGE, "202"] {
        door.acts(
            page,
            "7001",
            "message",
            json!({"mid": format!("m_{page}"), "text": "hi"}),
        )
        .await;
    }
    let (status, answer) = door.sends(json!({"psid": "7001", "text": "hello"})).await;
    assert_eq!((status, &answer["error"]), (400, &json!("field_invalid")));
    assert!(answer["message"].as_str().unwrap().starts_with("`page_id`"));
    let named = json!({"psid": "7001", "page_id": "202", "text": "hello"});
    assert_eq!(door.sends(named).await.0, 202);
}

#[rstest]
#[case(b"".as_slice(), "body")]
#[case(b"[]".as_slice(), "body")]
#[case(br#"{"psid":"7001"}"#.as_slice(), "text")]
#[case(br#"{"text":"hi"}"#.as_slice(), "user_id")]
#[tokio::test]
async fn the_field_at_fault_is_named_and_nothing_of_the_body(#[case] body: &[u8], #[case] field: &str) {
    let door = Door::open().await;
    let (status, answer) = door.posts(INBOUND_TOKEN, body).await;
    assert_eq!((status, &answer["error"]), (400, &json!("field_invalid")));
    let message = answer["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("`{field}`")), "{message}");
    assert!(!message.contains("7001"));
}

#[tokio::test]
async fn only_its_own_token_opens_it_if_there_is_one() {
    let door = Door::open().await;
    door.writes("7001", "hi").await;
    let body = json!({"psid": "7001", "text": "hello"}).to_string();
    assert_eq!(door.posts("guessed", body.as_bytes()).await.0, 401);
    assert_eq!(door.outbox("messenger_send").await, 0);
    assert_eq!(door.posts(INBOUND_TOKEN, body.as_bytes()).await.0, 202);
    let relay = json!({
        "inbound_token": INBOUND_TOKEN, "signing_secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "send_token": "new", "previous_send_token": "old",
    });
    door.house.write_secret("RelaySecret", &relay).await.unwrap();
    door.house.later(SignedDuration::from_mins(6));
    assert_eq!(door.posts("new", body.as_bytes()).await.0, 202);
    assert_eq!(door.posts("old", body.as_bytes()).await.0, 202);
    assert_eq!(door.posts(INBOUND_TOKEN, body.as_bytes()).await.0, 401);
}

#[tokio::test]
async fn without_the_store_or_the_secrets_it_is_our_fault() {
    let door = Door::open().await;
    door.writes("7001", "hi").await;
    door.house.aws.fail_next("BatchGetItem", 20, Fault::Throttle);
    assert_eq!(door.sends(json!({"psid": "7001", "text": "hello"})).await.0, 503);
}

#[rstest]
#[case("psid", json!("7".repeat(3_000)))]
#[case("page_id", json!("1".repeat(3_000)))]
#[case("campaign_id", json!("c".repeat(500_000)))]
#[case("message", json!({"attachment": {"type": "template", "payload": {"text": "t".repeat(500_000)}}}))]
#[tokio::test]
async fn what_no_table_can_hold_is_named(#[case] field: &str, #[case] value: Value) {
    let door = Door::open().await;
    door.writes("7001", "hi").await;
    let mut body = json!({"psid": "7001", "page_id": PAGE, "text": "hello"});
    body[field] = value;
    if field == "message" {
        body.as_object_mut().unwrap().remove("text");
    }
    let (status, answer) = door.sends(body).await;
    assert_eq!((status, answer["error"].as_str()), (400, Some("field_invalid")));
    assert!(answer["message"].as_str().unwrap().contains(field), "{answer}");
}

#[tokio::test]
async fn an_act_that_opens_no_window_takes_the_user_nowhere() {
    let door = Door::open().await;
    door.is(PAGE, "7001", "user-1").await;
    door.house.later(SignedDuration::from_hours(30));
    door.is("202332922643063", "7002", "user-1").await;
    door.house.later(SignedDuration::from_mins(1));
    let ad = json!({"ref": "spring", "source": "ADS", "type": "OPEN_THREAD"});
    door.acts(PAGE, "7001", "referral", ad).await;
    let (status, answer) = door.sends(json!({"user_id": "user-1", "text": "hello"})).await;
    assert_eq!(status, 202, "{answer}");
}
