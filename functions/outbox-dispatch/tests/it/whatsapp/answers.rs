//! Messages in, answers out.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use testkit::braze::{Identifier, InputArray};
use testkit::external_system::{Behaviour, Reply};

use super::house::{EXTERNAL_TOKEN, House, TOKEN, relay_secret};

#[tokio::test]
async fn a_message_is_answered_in_two_round_trips_and_one_tick() {
    let house = House::start().await;
    house.knows("42");
    let answer = house.says("42", "where is my \"order\"?\nIt is late.").await;
    assert_eq!(answer["status"], "accepted");
    assert_eq!(answer["message_id"].as_str().unwrap().len(), 32);
    assert_eq!(
        house.aws.dynamodb_calls().total(),
        2,
        "{:?}",
        house.aws.dynamodb_calls()
    );
    house.tick().await;
    assert_eq!(house.got("42"), ["You said: where is my \"order\"?\nIt is late."]);
    assert_eq!(house.rows("pending").await, []);
    let sent = &house.braze.sent_messages()[0];
    assert_eq!(sent.campaign_id, "reply-campaign");
    assert_eq!(sent.recipient, Identifier::ExternalId("42".into()));
    let handed = &house.external_system.handovers()[0];
    assert_eq!(handed.conversation_id(), "user:42");
    assert_eq!(handed.body["reply_url"], house.reply_url);
}

#[tokio::test]
async fn the_history_is_told_along() {
    let house = House::start().await;
    house.knows("42");
    house.says("42", "one").await;
    house.tick().await;
    house.says("42", "two").await;
    house.tick().await;
    let history = house.external_system.handovers()[1].body["history"].clone();
    let said: Vec<_> = history
        .as_array()
        .unwrap()
        .iter()
        .map(|turn| (&turn["role"], &turn["text"]))
        .collect();
    assert_eq!(
        said,
        [
            (&json!("user"), &json!("one")),
            (&json!("assistant"), &json!("You said: one"))
        ]
    );
    assert_eq!(house.got("42"), ["You said: one", "You said: two"]);
}

#[tokio::test]
async fn the_same_message_is_taken_once() {
    let house = House::start().await;
    house.knows("42");
    let status = |answer: (u16, Value)| {
        assert_eq!(answer.0, 202);
        answer.1["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(house.forwards("42", "yes", "d1").await), "accepted");
    assert_eq!(status(house.forwards("42", "yes", "d1").await), "duplicate");
    // A keyword campaign and a catch-all both fire.
    assert_eq!(status(house.forwards("42", "yes", "d2").await), "duplicate");
    house.later(SignedDuration::from_secs(11));
    assert_eq!(status(house.forwards("42", "yes", "d3").await), "accepted");
    house.later(SignedDuration::from_hours(5));
    assert_eq!(status(house.forwards("42", "yes", "d1").await), "duplicate");
    // Another person may share a dispatch id.
    assert_eq!(status(house.forwards("43", "yes", "d1").await), "accepted");
    let preview = "dispatch_id_for_unsent_campaign";
    for _ in 0..2 {
        assert_eq!(status(house.forwards("42", "preview", preview).await), "accepted");
    }
    house.knows("43");
    house.drain().await;
    assert_eq!(
        house.external_system.texts("user:42"),
        ["yes", "yes", "preview", "preview"]
    );
    assert_eq!(house.external_system.texts("user:43"), ["yes"]);
}

#[tokio::test]
async fn only_a_token_opens_and_a_rotation_needs_no_redeploy() {
    let house = House::start().await;
    let body = r#"{"user_id":"42","phone_number":"+1555","message":"hi"}"#;
    for token in [None, Some(""), Some("wrong")] {
        let (status, answer) = house.inbound(body, token).await;
        assert_eq!((status, answer["error"].as_str()), (401, Some("token_invalid")));
    }
    assert_eq!(house.aws.dynamodb_calls().total(), 0);
    let asked = house.aws.secrets_manager_calls().total();
    assert!(
        asked <= 2,
        "{asked} requests for a secret: strangers must not make us ask each time"
    );
    let rotated = relay_secret("new-token", Some(TOKEN));
    house.write_secret("RelaySecret", &rotated).await.unwrap();
    house.later(SignedDuration::from_mins(2));
    assert_eq!(house.inbound(body, Some("new-token")).await.0, 202);
    assert_eq!(house.inbound(body, Some(TOKEN)).await.0, 202);
}

#[tokio::test]
async fn while_nobody_has_filled_in_the_token_it_is_a_503() {
    let house = House::start().await;
    let empty = relay_secret("", None);
    house.write_secret("RelaySecret", &empty).await.unwrap();
    assert_eq!(house.inbound("{}", Some("")).await.0, 503);
    assert_eq!(house.inbound("{}", Some("x")).await.0, 503);
}

#[tokio::test]
async fn what_cannot_be_read_is_kept_and_never_refused() {
    let house = House::start().await;
    let status = async |body: &str| {
        let (status, answer) = house.inbound(body, Some(TOKEN)).await;
        assert_eq!(status, 202, "{body}");
        (
            answer["status"].as_str().unwrap().to_owned(),
            answer["reason"].clone(),
        )
    };
    assert_eq!(status("").await, ("quarantined".into(), json!("empty_body")));
    assert_eq!(
        status(r#"{"message":"hi"}"#).await,
        ("quarantined".into(), json!("no_identity"))
    );
    assert_eq!(
        status(r#"{"user_id":"42","message":" "}"#).await,
        ("ignored".into(), json!("blank"))
    );
    assert_eq!(
        status(r#"{"user_id":"42","message":" stop "}"#).await,
        ("ignored".into(), json!("keyword"))
    );
    assert_eq!(house.rows("quarantined").await.len(), 2);
    let large = format!(r#"{{"user_id":"42","message":"{}"}}"#, "x".repeat(5_000_000));
    assert_eq!(house.inbound(&large, Some(TOKEN)).await.0, 413);
    assert_eq!(house.rows("pending").await, []);
}

#[tokio::test]
async fn an_unknown_number_is_answered_by_its_alias() {
    let house = House::start().await;
    let alias = json!({"attributes": [{"_update_existing_only": false, "a": 1,
        "user_alias": {"alias_label": "phone", "alias_name": "+15550000001"}}]});
    let client = shared::clients::http::client(Duration::from_secs(5));
    let made = client
        .post(format!("{}/users/track", house.braze.url()))
        .bearer_auth(testkit::house::BRAZE_KEY)
        .json(&alias);
    assert!(made.send().await.unwrap().status().is_success());
    let body = r#"{"user_id":"","phone_number":"+15550000001","message":"hola"}"#;
    assert_eq!(house.inbound(body, Some(TOKEN)).await.0, 202);
    house.tick().await;
    let sent = house.braze.sent_messages();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        sent[0].recipient,
        Identifier::Alias {
            label: "phone".into(),
            name: "+15550000001".into()
        }
    );
}

#[tokio::test]
async fn replies_keep_their_order_and_long_ones_are_split() {
    let house = House::with(&[(
        "RELAY_ROUTES",
        r#"[{"name":"step-2","reply_campaign_id":"second-campaign"}]"#,
    )])
    .await;
    house.knows("42");
    let long = "A sentence of words. ".repeat(300);
    house.external_system.script(Behaviour::Reply(
        Reply::text("first")
            .and(&long)
            .and_through("last", "step-2")
            .attributes(json!({"topic": "orders"})),
    ));
    house.says("42", "hi").await;
    house.tick().await;
    let got = house.got("42");
    assert_eq!(
        (got.len(), got[0].as_str(), got[3].as_str()),
        (4, "first", "last")
    );
    assert_eq!(format!("{} {}", got[1], got[2]), long.trim());
    assert_eq!(house.attribute("42", "topic"), Some(json!("orders")));
    assert_eq!(house.braze.sent_messages()[3].campaign_id, "second-campaign");
}

#[tokio::test]
async fn a_human_takes_over_and_hands_back() {
    let house = House::start().await;
    house.knows("42");
    house.external_system.script(Behaviour::Reply(
        Reply::text("A colleague takes over.").handoff(true),
    ));
    house.says("42", "human please").await;
    house.tick().await;
    assert_eq!(house.attribute("42", "whatsapp_human_agent"), Some(json!(true)));
    house.external_system.script(Behaviour::Reply(Reply::silent()));
    house.says("42", "are you there?").await;
    house.tick().await;
    assert_eq!(house.external_system.handovers()[1].mode(), "human");
    let back = json!({"conversation_id": "user:42", "replies": [{"text": "Solved!"}], "handoff": false});
    assert_eq!(house.answers_signed(&back, "msg_1").await.0, 202);
    house.tick().await;
    assert_eq!(house.attribute("42", "whatsapp_human_agent"), Some(json!(false)));
    assert_eq!(house.got("42"), ["A colleague takes over.", "Solved!"]);
}

#[tokio::test]
async fn a_hand_off_ends_with_a_day_of_silence() {
    let house = House::start().await;
    house.knows("42");
    house
        .external_system
        .script(Behaviour::Reply(Reply::silent().handoff(true)));
    house.says("42", "human please").await;
    house.tick().await;
    assert_eq!(house.attribute("42", "whatsapp_human_agent"), Some(json!(true)));
    house.later(SignedDuration::from_hours(25));
    house.says("42", "hello again").await;
    house.tick().await;
    assert_eq!(house.attribute("42", "whatsapp_human_agent"), Some(json!(false)));
    assert_eq!(house.external_system.handovers()[1].mode(), "bot");
    assert_eq!(house.got("42"), ["You said: hello again"]);
}

#[tokio::test]
async fn a_chatbot_of_kind_openai_answers_and_is_silent_for_a_human() {
    let house = House::with(&[("EXTERNAL_SYSTEM_KIND", "openai")]).await;
    house.knows("42");
    house.says("42", "hi").await;
    house.tick().await;
    assert_eq!(house.got("42"), ["You said: hi"]);
    let request = &house.external_system.handovers()[0].body;
    assert_eq!(
        (&request["model"], &request["messages"][0]["role"]),
        (&json!("model"), &json!("system"))
    );
    let human = json!({"conversation_id": "user:42", "replies": [], "handoff": true});
    assert_eq!(house.answers_signed(&human, "msg_1").await.0, 202);
    house.says("42", "anybody?").await;
    house.tick().await;
    assert_eq!(
        (house.external_system.handover_count(), house.got("42").len()),
        (1, 1)
    );
    assert_eq!(house.rows("pending").await, []);
}

#[tokio::test]
async fn a_chatbot_whose_model_remembers_less_answers_all_the_same() {
    let house = House::with(&[("EXTERNAL_SYSTEM_KIND", "openai")]).await;
    house.knows("42");
    let long = "A sentence of words. ".repeat(100);
    house.external_system.set_behaviour(Behaviour::text(&long));
    for text in ["one", "two", "three"] {
        house.says("42", text).await;
        house.tick().await;
    }
    house
        .external_system
        .set_behaviour(Behaviour::failing_above(3_000, 400));
    house.says("42", "four").await;
    house.tick().await;
    assert_eq!(house.got("42")[3..], ["You said: four"]);
    assert_eq!(house.external_system.handover_count(), 5);
    house.says("42", &long).await;
    house.tick().await;
    assert_eq!(house.got("42")[4..], [format!("You said: {long}").trim()]);
    assert_eq!(house.rows("dead").await, []);
}

#[tokio::test]
async fn an_answer_that_comes_later_goes_through_the_real_route() {
    let house = House::start().await;
    house.knows("42");
    house
        .external_system
        .script(Behaviour::later(Duration::from_millis(50)));
    house.says("42", "hi").await;
    house.tick().await;
    assert_eq!(house.got("42"), Vec::<String>::new());
    let called = house
        .external_system
        .until(Duration::from_secs(10), |system| !system.callbacks().is_empty());
    assert!(called.await);
    assert_eq!(house.external_system.callbacks()[0].status, Some(202));
    house.tick().await;
    assert_eq!(house.got("42"), ["You said: hi"]);
    assert_eq!(house.external_system.handover_count(), 1);
}

#[tokio::test]
async fn what_comes_to_the_reply_route_is_checked() {
    let house = House::start().await;
    house.knows("42");
    let reply = json!({"conversation_id": "user:42", "replies": [{"text": "later"}]});
    let bearer = |token: &str| vec![("authorization", format!("Bearer {token}"))];
    assert_eq!(house.answers(&reply, &[]).await.0, 401);
    assert_eq!(house.answers(&reply, &bearer("wrong")).await.0, 401);
    let unknown = house.answers_signed(&reply, "msg_0").await;
    assert_eq!(
        (unknown.0, unknown.1["error"].as_str()),
        (404, Some("conversation_unknown"))
    );
    house.says("42", "hi").await;
    house.tick().await;

    let mut headers = testkit::signer::standard_webhooks_headers(
        super::house::SIGNING_SECRET,
        "msg_1",
        house.clock.now(),
        b"{}",
    )
    .unwrap();
    assert_eq!(
        house.answers(&reply, &headers).await.0,
        401,
        "another body's signature"
    );
    headers[2].1 = String::new();
    assert_eq!(house.answers(&reply, &headers).await.0, 401);

    for (body, field) in [
        (json!({"replies": []}), "conversation_id"),
        (json!({"conversation_id": "42", "replies": []}), "conversation_id"),
        (json!({"conversation_id": "user:42"}), "replies"),
        (
            json!({"conversation_id": "user:42", "replies": [{}]}),
            "replies[0].text",
        ),
    ] {
        let (status, answer) = house.answers_signed(&body, "msg_bad").await;
        assert_eq!(status, 400);
        assert!(
            answer["message"]
                .as_str()
                .unwrap()
                .contains(&format!("`{field}`")),
            "{answer}"
        );
    }

    assert_eq!(
        house.answers_signed(&reply, "msg_1").await.1["status"],
        "accepted"
    );
    assert_eq!(
        house.answers_signed(&reply, "msg_1").await.1["status"],
        "duplicate"
    );
    let again = json!({"conversation_id": "user:42", "replies": [{"text": "by token"}]});
    assert_eq!(
        house.answers(&again, &bearer(EXTERNAL_TOKEN)).await.1["status"],
        "accepted"
    );
    assert_eq!(
        house.answers(&again, &bearer(EXTERNAL_TOKEN)).await.1["status"],
        "duplicate"
    );
    house.tick().await;
    assert_eq!(house.got("42"), ["You said: hi", "later", "by token"]);

    house.later(SignedDuration::from_hours(25));
    let (status, answer) = house.answers_signed(&reply, "msg_2").await;
    assert_eq!((status, answer["error"].as_str()), (409, Some("window_closed")));
    house.later(SignedDuration::from_hours(-2));
    assert_eq!(
        house.answers_signed(&reply, "msg_1").await.1["status"],
        "duplicate",
        "what was taken stays so"
    );
}

#[tokio::test]
async fn after_24_hours_a_reply_goes_by_template_or_not_at_all() {
    for template in [None, Some("template-campaign")] {
        let settings: Vec<_> = template.iter().map(|id| ("TEMPLATE_CAMPAIGN_ID", *id)).collect();
        let house = House::with(&settings).await;
        house.knows("42");
        house
            .external_system
            .script(Behaviour::text("It is\n  on its\tway."));
        house.braze.begin_outage(testkit::braze::faults::unavailable(503));
        house.says("42", "hi").await;
        house.tick().await;
        assert_eq!(house.rows("pending").await.len(), 1);
        house.later(SignedDuration::from_hours(25));
        house.braze.end_outage();
        house.drain().await;
        if template.is_some() {
            assert_eq!(house.got("42"), ["It is on its way."]);
            assert_eq!(house.braze.sent_messages()[0].campaign_id, "template-campaign");
        } else {
            assert_eq!(house.got("42"), Vec::<String>::new());
            assert_eq!(house.rows("dead").await[0].1, "window_closed");
        }
        assert_eq!(house.external_system.handover_count(), 1);
    }
}

#[tokio::test]
async fn a_long_reply_is_split_anew_for_a_template() {
    let house = House::with(&[("TEMPLATE_CAMPAIGN_ID", "template-campaign")]).await;
    house.knows("42");
    let long = "A sentence of words. ".repeat(120);
    house
        .external_system
        .script(Behaviour::Reply(Reply::text(&long).and("after")));
    house.braze.begin_outage(testkit::braze::faults::unavailable(503));
    house.says("42", "hi").await;
    house.tick().await;
    house.later(SignedDuration::from_hours(25));
    house.braze.end_outage();
    house.drain().await;
    let got = house.got("42");
    assert_eq!((got.len(), got[3].as_str()), (4, "after"));
    assert_eq!(got[..3].join(" "), long.trim());
}

#[tokio::test]
async fn routes_have_their_own_system_and_campaign() {
    let house = House::start().await;
    let url = format!("{}/orders", house.external_system.url());
    let routes = json!([{"name": "orders", "keywords": ["ORDER"], "match": "prefix", "external_system_url": url,
        "reply_campaign_id": "order-campaign", "attributes": {"topic": "orders"}}]);
    let routes = routes.to_string();
    // The URL of a fake is known once it runs, so the routes are those of a second house's settings.
    let other = House::with(&[("RELAY_ROUTES", &routes)]).await;
    other.knows("42");
    for text in ["hello", "Order 66", "and when?"] {
        other.says("42", text).await;
        other.tick().await;
    }
    assert_eq!(other.external_system.texts("user:42"), ["hello"]);
    assert_eq!(house.external_system.texts("user:42"), ["Order 66", "and when?"]);
    assert!(house.external_system.handovers()[0].path.ends_with("/orders"));
    let campaigns: Vec<_> = other
        .braze
        .sent_messages()
        .into_iter()
        .map(|sent| sent.campaign_id)
        .collect();
    assert_eq!(campaigns, ["reply-campaign", "order-campaign", "order-campaign"]);
    assert_eq!(other.attribute("42", "topic"), Some(json!("orders")));
}

#[tokio::test]
async fn silence_is_an_answer() {
    let house = House::start().await;
    house.external_system.script(Behaviour::Reply(Reply::silent()));
    house.says("42", "thanks").await;
    house.tick().await;
    assert_eq!(house.rows("pending").await, []);
    assert_eq!(house.braze.request_count(), 0);
    assert!(
        house
            .braze
            .track_requests()
            .iter()
            .all(|request| request.objects(InputArray::Attributes).is_empty())
    );
}
