//! Faults of the relay, one of each kind.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use testkit::braze::Endpoint;
use testkit::braze::faults::{RateLimit, rate_limited};
use testkit::external_system::Behaviour;
use testkit::fault::{Answer, Fault};

use super::house::{EXTERNAL_TOKEN, House, TOKEN};

fn bearer(token: &str) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {token}"))]
}

fn reply(user: &str, text: &str) -> Value {
    json!({"conversation_id": format!("user:{user}"), "replies": [{"text": text}]})
}

#[tokio::test]
async fn who_answers_the_next_question_repeats_nothing() {
    let house = House::start().await;
    house.knows("42");
    house.says("42", "1").await;
    house.tick().await;
    house.later(SignedDuration::from_secs(-28));
    let (status, answer) = house.forwards("42", "1", "another").await;
    assert_eq!((status, &answer["status"]), (202, &json!("accepted")), "{answer}");
    // Without a dispatch id likewise.
    let bare = json!({"user_id": "43", "phone_number": "+1", "message": "yes"}).to_string();
    house.knows("43");
    for _ in 0..2 {
        let (_, answer) = house.inbound(&bare, Some(TOKEN)).await;
        assert_eq!(answer["status"], "accepted");
        let (_, again) = house.inbound(&bare, Some(TOKEN)).await;
        assert_eq!(again["status"], "duplicate");
        house.tick().await;
        house.later(SignedDuration::from_secs(-28));
    }
    assert_eq!(house.got("43").len(), 2);
}

#[tokio::test]
async fn an_ignored_keyword_opens_the_window() {
    let house = House::start().await;
    house.knows("42");
    house.says("42", "hi").await;
    house.drain().await;
    house.later(SignedDuration::from_hours(30));
    let later = reply("42", "back in stock");
    assert_eq!(house.answers(&later, &bearer(EXTERNAL_TOKEN)).await.0, 409);
    let (_, answer) = house.forwards("42", "START", "d-start").await;
    assert_eq!(
        (&answer["status"], &answer["reason"]),
        (&json!("ignored"), &json!("keyword"))
    );
    assert_eq!(house.answers(&later, &bearer(EXTERNAL_TOKEN)).await.0, 202);
    house.drain().await;
    assert_eq!(house.got("42"), ["You said: hi", "back in stock"]);
    assert_eq!(house.external_system.handover_count(), 1);
}

#[tokio::test]
async fn a_caption_is_no_keyword_and_a_long_name_does_no_harm() {
    let house = House::start().await;
    house.knows("42");
    let photo = json!({
        "user_id": "42", "phone_number": "+1", "profile_name": "x".repeat(500_000), "message": "stop",
        "media_urls": "https://media/1", "dispatch_id": "d",
    });
    let (status, answer) = house.inbound(&photo.to_string(), Some(TOKEN)).await;
    assert_eq!((status, &answer["status"]), (202, &json!("accepted")));
    house.tick().await;
    assert_eq!(house.external_system.texts("user:42"), ["stop"]);
}

#[tokio::test]
async fn a_vendor_opens_only_the_conversations_on_its_route() {
    let routes = r#"[{"name":"b","keywords":["b"]}]"#;
    let house = House::with(&[("RELAY_ROUTES", routes)]).await;
    let mut secret = super::house::relay_secret(TOKEN, None);
    secret["routes"] = json!({"b": {"external_system_token": "vendor-b"}});
    house.write_secret("RelaySecret", &secret).await.unwrap();
    for (user, text) in [("1", "hi"), ("2", "b")] {
        house.knows(user);
        house.says(user, text).await;
    }
    for (user, token, expected) in [
        ("1", EXTERNAL_TOKEN, 202),
        ("1", "vendor-b", 403),
        ("2", "vendor-b", 202),
        ("2", EXTERNAL_TOKEN, 403),
        ("2", "nobody", 401),
        ("3", "vendor-b", 404),
    ] {
        let (status, answer) = house.answers(&reply(user, "hello"), &bearer(token)).await;
        assert_eq!(status, expected, "{user} {token} {answer}");
    }
    // A route that the settings no longer know counts as none.
    secret["routes"] = json!({"gone": {"external_system_token": "vendor-b"}});
    house.write_secret("RelaySecret", &secret).await.unwrap();
    house.later(SignedDuration::from_mins(6));
    house.is_on_route("user:1", "gone").await;
    for (token, expected) in [("vendor-b", 403), (EXTERNAL_TOKEN, 202)] {
        let (status, answer) = house.answers(&reply("1", "hello again"), &bearer(token)).await;
        assert_eq!(status, expected, "{token} {answer}");
    }
    secret["routes"] = json!({"b": {"external_system_token": "vendor-b"}});
    house.write_secret("RelaySecret", &secret).await.unwrap();
    house.later(SignedDuration::from_mins(6));
    let identity = json!({"conversation_id": "user:2", "attributes": {"topic": "x", "email": "a@b.c"}});
    let (status, answer) = house.answers(&identity, &bearer("vendor-b")).await;
    assert_eq!(status, 400);
    assert!(
        answer["message"].as_str().unwrap().contains("`attributes.email`"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_conversation_that_is_older_than_its_outbox_goes_on() {
    let house = House::start().await;
    house.knows("42");
    house.says("42", "hi").await;
    house.drain().await;
    house.says("42", "and again").await;
    house.drain().await;
    house.forgets_conversation("user:42").await;
    let asked = house.external_system.handover_count();
    house.says("42", "still there?").await;
    house.drain().await;
    assert_eq!(house.got("42").last().unwrap(), "You said: still there?");
    assert_eq!(house.external_system.handover_count(), asked + 1);
    let (status, answer) = house
        .answers(&reply("42", "by the way"), &bearer(EXTERNAL_TOKEN))
        .await;
    assert_eq!((status, &answer["status"]), (202, &json!("accepted")));
    house.drain().await;
    assert_eq!(house.got("42").last().unwrap(), "by the way");
}

#[tokio::test]
async fn what_cannot_be_read_harms_only_itself() {
    let house = House::start().await;
    for user in ["1", "2"] {
        house.knows(user);
        house.says(user, "hi").await;
    }
    house.spoils("user:1", "conversation").await;
    let (status, answer) = house.forwards("1", "hello?", "d-spoilt").await;
    assert_eq!(
        (status, &answer["status"]),
        (202, &json!("quarantined")),
        "{answer}"
    );
    let (status, _) = house.answers(&reply("1", "x"), &bearer(EXTERNAL_TOKEN)).await;
    assert_eq!(status, 202);
    house.tick().await;
    assert_eq!(house.got("2"), ["You said: hi"]);
    let pending = house.rows("pending").await;
    assert_eq!(pending.len(), 1, "{pending:?}");
    assert_eq!(pending[0].1, "conversation_unreadable");
}

#[tokio::test]
async fn a_turn_that_cannot_be_read_holds_up_no_other() {
    let house = House::start().await;
    house.knows("42");
    house.says("42", "first").await;
    house.spoils("user:42", "turn#").await;
    house.says("42", "second").await;
    house.tick().await;
    assert_eq!(house.got("42"), ["You said: second"]);
    let pending = house.rows("pending").await;
    assert_eq!(pending.len(), 1);
    assert_eq!(pending[0].1, "turn_unreadable");
}

#[tokio::test]
async fn pieces_keep_their_order_when_one_has_to_wait() {
    let house = House::with(&[("TEMPLATE_CAMPAIGN_ID", "reply-campaign")]).await;
    house.knows("42");
    house.says("42", "hi").await;
    house.drain().await;
    let long = "A sentence of words. ".repeat(150);
    let both = json!({"conversation_id": "user:42", "replies": [{"text": "short"}, {"text": long}]});
    house.later(SignedDuration::from_hours(30));
    assert_eq!(house.answers(&both, &bearer(EXTERNAL_TOKEN)).await.0, 202);
    // The second piece of the long one is refused for a while.
    for fault in [
        Fault::Late(Duration::ZERO),
        Fault::Late(Duration::ZERO),
        rate_limited(RateLimit::RetryAfter(20)),
    ] {
        house.braze.script(Endpoint::TriggerSend, fault);
    }
    house.tick().await;
    let before = house.got("42").len();
    house.later(SignedDuration::from_secs(-25));
    house.says("42", "are you there?").await;
    house.wakes("user:42").await;
    assert_eq!(
        house.got("42").len(),
        before,
        "nothing overtakes the piece that waits"
    );
    house.drain().await;
    let got = house.got("42");
    let pieces: String = got[2..got.len() - 1].join(" ");
    assert_eq!(got[1], "short");
    assert_eq!(pieces.split_whitespace().count(), long.split_whitespace().count());
    assert_eq!(got.last().unwrap(), "You said: are you there?");
}

#[tokio::test]
async fn the_disclosure_comes_once_and_before_the_first_words() {
    let house = House::with(&[("DISCLOSURE_TEXT", "A machine answers.")]).await;
    house.knows("42");
    for text in ["hi", "and?"] {
        house.says("42", text).await;
        house.drain().await;
    }
    assert_eq!(
        house.got("42"),
        ["A machine answers.", "You said: hi", "You said: and?"]
    );
}

/// The system posts an answer while it is being asked.
async fn answers_while_asked(house: &House, text: &str) -> u16 {
    let tick = house.tick();
    let answered = async {
        let asked = house
            .external_system
            .until(testkit::time::PATIENCE, |system| system.handover_count() == 1);
        assert!(asked.await);
        house.answers(&reply("42", text), &bearer(EXTERNAL_TOKEN)).await
    };
    let (_, (status, _)) = tokio::join!(tick, answered);
    status
}

#[tokio::test]
async fn an_answer_that_comes_meanwhile_settles_what_is_asked() {
    let house = House::start().await;
    house.knows("42");
    house.says("42", "hi").await;
    house
        .external_system
        .script(Behaviour::slow(Duration::from_mins(1)));
    assert_eq!(answers_while_asked(&house, "Hello!").await, 202);
    house.drain().await;
    assert_eq!(house.got("42"), ["Hello!"]);
    assert_eq!(house.external_system.handover_count(), 1);
}

#[tokio::test]
async fn what_else_the_call_answers_is_taken_though_another_answer_was_quicker() {
    let house = House::start().await;
    house.knows("42");
    house.says("42", "hi").await;
    let late = json!({
        "replies": [{"text": "One moment"}, {"campaign": "sizes"}], "handoff": true, "attributes": {"topic": "shoes"},
    });
    let late = Behaviour::Fault(Fault::Answer(Answer::json(200, &late)));
    house
        .external_system
        .script(Behaviour::Slow(Duration::from_secs(3), Box::new(late)));
    assert_eq!(answers_while_asked(&house, "Just a second").await, 202);
    house.drain().await;
    let campaigns: Vec<String> = house
        .braze
        .sent_messages()
        .into_iter()
        .map(|sent| sent.campaign_id)
        .collect();
    assert_eq!(campaigns.len(), 3, "{campaigns:?}");
    assert_eq!(campaigns[2], "sizes");
    assert_eq!(house.attribute("42", "topic"), Some(json!("shoes")));
    assert_eq!(house.attribute("42", "whatsapp_human_agent"), Some(json!(true)));
}
