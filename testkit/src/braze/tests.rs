mod canvas;

use std::time::Duration;

use jiff::Timestamp;
use reqwest::Response;
use serde_json::{Value, json};

use super::*;
use crate::client::client;

async fn start() -> FakeBraze {
    FakeBraze::start(Options::new("key").trigger_api_key("trigger-key"))
        .await
        .unwrap()
}

async fn send(braze: &FakeBraze, path: &str, key: &str, body: &Value) -> reqwest::Result<Response> {
    let request = client()
        .post(format!("{}{path}", braze.url()))
        .bearer_auth(key)
        .json(body);
    request.send().await
}

/// Status and body of an answer.
async fn post(braze: &FakeBraze, endpoint: Endpoint, body: Value) -> (u16, Value) {
    let key = match endpoint {
        Endpoint::TriggerSend | Endpoint::CanvasSend => "trigger-key",
        Endpoint::Track | Endpoint::Identify | Endpoint::Delete => "key",
    };
    let response = send(braze, endpoint.path(), key, &body).await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn track(braze: &FakeBraze, body: Value) -> (u16, Value) {
    post(braze, Endpoint::Track, body).await
}

fn alias(name: &str) -> Value {
    json!({"alias_label": "messenger:1", "alias_name": name})
}

#[tokio::test]
async fn a_known_user_is_made_and_changed_by_attributes() {
    let braze = start().await;
    let body = json!({"attributes": [{"external_id": "u", "messenger_id": "24", "old": 1}]});
    let expected = json!({"message": "success", "attributes_processed": 1});
    assert_eq!(track(&braze, body).await, (201, expected));
    track(&braze, json!({"attributes": [{"external_id": "u", "old": null}]})).await;
    let profile = braze.profile("u").unwrap();
    assert_eq!(Value::from(profile.attributes), json!({"messenger_id": "24"}));
    assert_eq!(braze.data_points(), 3);
    assert_eq!(
        braze.track_requests()[0].objects(InputArray::Attributes)[0]["old"],
        1
    );
}

#[tokio::test]
async fn an_alias_profile_is_made_only_when_asked_for() {
    let braze = start().await;
    let event = |alias: Value| json!({"user_alias": alias, "name": "n", "time": "2026-11-21T10:00:00Z"});
    track(
        &braze,
        json!({"attributes": [{"user_alias": alias("1"), "a": 1}], "events": [event(alias("1"))]}),
    )
    .await;
    assert!(braze.profiles().is_empty());

    let created = json!({"user_alias": alias("1"), "_update_existing_only": false, "a": 1});
    let (status, answer) = track(
        &braze,
        json!({"attributes": [created], "events": [event(alias("1"))]}),
    )
    .await;
    assert_eq!((status, answer["events_processed"].as_u64()), (201, Some(1)));
    let profile = braze.alias_profile("messenger:1", "1").unwrap();
    assert_eq!((profile.external_id, profile.events.len()), (None, 1));
}

#[tokio::test]
async fn an_invalid_object_costs_only_itself() {
    let braze = start().await;
    let both = json!({"external_id": "u", "user_alias": alias("1")});
    let long = json!({"external_id": "x".repeat(988), "a": 1});
    let timeless = json!({"external_id": "u", "name": "n"});
    let body = json!({"attributes": [both, {"external_id": "u", "a": 1}, long], "events": [timeless, {"name": "n"}]});
    let (status, answer) = track(&braze, body).await;
    assert_eq!((status, &answer["attributes_processed"]), (201, &json!(1)));
    let places: Vec<_> = answer["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (&e["input_array"], &e["index"]))
        .collect();
    assert_eq!(
        json!(places),
        json!([["attributes", 0], ["attributes", 2], ["events", 0], ["events", 1]])
    );
    assert_eq!(answer["errors"][1]["type"], "EXTERNAL_USER_ID_TOO_LARGE");
    assert_eq!(answer["errors"][3]["type"], "'external_id' is required");
    assert!(answer.get("events_processed").is_none());
    assert_eq!(braze.take_refusals().len(), 1);
}

#[tokio::test]
async fn a_request_without_anything_valid_is_refused_as_a_whole() {
    let braze = start().await;
    for body in [
        json!({}),
        json!({"attributes": []}),
        json!({"attributes": [{"a": 1}]}),
    ] {
        let (status, answer) = track(&braze, body).await;
        assert_eq!(status, 400);
        assert!(
            answer["message"]
                .as_str()
                .unwrap()
                .starts_with("Valid data must be provided")
        );
    }
    // With an empty object a key is looked at: nothing that anyone would have to look into.
    assert_eq!(braze.take_refusals().len(), 2);
}

#[tokio::test]
async fn the_limits_of_a_request() {
    let braze = start().await;
    let user = |index: usize| json!({"external_id": format!("u{index}"), "a": 1});
    let event = json!({"external_id": "u0", "name": "n", "time": "2026-11-21T10:00:00Z"});
    let users: Vec<_> = (0..74).map(user).collect();
    assert_eq!(
        track(&braze, json!({"attributes": users, "events": [event]}))
            .await
            .0,
        201
    );
    let answer = track(&braze, json!({"attributes": users, "events": [event, event]})).await;
    assert_eq!(answer, (400, json!({"message": "Max Input Length Exceeded"})));
    let large = json!({"attributes": [{"external_id": "u", "a": "x".repeat(4_000_000)}]});
    assert_eq!(track(&braze, large).await.0, 413);
    assert_eq!(braze.take_refusals().len(), 2);
    assert_eq!(braze.profiles().len(), 74);
}

#[tokio::test]
async fn keys_open_only_what_they_are_for() {
    let braze = start().await;
    let body = json!({"attributes": [{"external_id": "u", "a": 1}]});
    let response = send(&braze, "/users/track", "non-existent", &body).await.unwrap();
    assert_eq!(response.status(), 401);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer, json!({"message": "Invalid API key: non-existent"}));
    for (path, key, status) in [
        ("/users/track", "", 401),
        ("/users/track", "trigger-key", 403),
        ("/campaigns/trigger/send", "key", 403),
        ("/users/track/", "key", 403),
        ("/users/delete", "trigger-key", 403),
        ("/users/merge", "key", 404),
    ] {
        let response = send(&braze, path, key, &body).await.unwrap();
        assert_eq!(response.status(), status, "{path} {key}");
    }
    let url = format!("{}/users/track", braze.url());
    let text = client()
        .post(url)
        .bearer_auth("key")
        .header("content-type", "text/plain")
        .body(body.to_string());
    assert_eq!(text.send().await.unwrap().status(), 415);
    assert!(braze.profiles().is_empty());
    assert_eq!(braze.take_refusals().len(), 8);
}

#[tokio::test]
async fn identify_names_an_anonymous_profile() {
    let braze = start().await;
    let attributes = json!([{"user_alias": alias("1"), "_update_existing_only": false, "messenger_id": "1"}]);
    track(&braze, json!({"attributes": attributes})).await;
    let body = json!({"aliases_to_identify": [{"external_id": "u", "user_alias": alias("1")}]});
    let expected = json!({"aliases_processed": 1, "message": "success"});
    assert_eq!(post(&braze, Endpoint::Identify, body).await, (201, expected));
    assert_eq!(braze.profile("u").unwrap().aliases["messenger:1"], "1");
    assert_eq!(braze.profiles().len(), 1);
}

#[tokio::test]
async fn identify_fills_in_what_the_known_user_lacks() {
    let braze = start().await;
    braze.add_user("u", &json!({"name": "Ana"}));
    let anonymous =
        json!({"user_alias": alias("1"), "_update_existing_only": false, "name": "?", "messenger_id": "1"});
    let event = json!({"user_alias": alias("1"), "name": "n", "time": "2026-11-21T10:00:00Z"});
    track(&braze, json!({"attributes": [anonymous], "events": [event]})).await;
    let pair = json!({"external_id": "u", "user_alias": alias("1")});
    post(&braze, Endpoint::Identify, json!({"aliases_to_identify": [pair]})).await;
    let profile = braze.profile("u").unwrap();
    assert_eq!(
        Value::from(profile.attributes.clone()),
        json!({"name": "Ana", "messenger_id": "1"})
    );
    assert_eq!(braze.alias_profile("messenger:1", "1"), Some(profile));
    assert_eq!((braze.profiles().len(), braze.events().len()), (1, 1));
}

#[tokio::test]
async fn identify_keeps_profiles_apart_when_the_label_is_taken() {
    let braze = start().await;
    for name in ["1", "2"] {
        let object = json!({"user_alias": alias(name), "_update_existing_only": false, "messenger_id": name});
        track(&braze, json!({"attributes": [object]})).await;
        let pair = json!({"external_id": "u", "user_alias": alias(name)});
        let (status, answer) = post(&braze, Endpoint::Identify, json!({"aliases_to_identify": [pair]})).await;
        assert_eq!((status, &answer["aliases_processed"]), (201, &json!(1)));
    }
    assert_eq!(
        braze.profile("u").unwrap().attribute("messenger_id").unwrap(),
        "1"
    );
    assert_eq!(braze.alias_profile("messenger:1", "2").unwrap().external_id, None);
    let pairs = vec![json!({"external_id": "u", "user_alias": alias("1")}); 51];
    assert_eq!(
        post(&braze, Endpoint::Identify, json!({"aliases_to_identify": pairs}))
            .await
            .0,
        400
    );
    assert_eq!(braze.take_refusals().len(), 1);
}

fn to(campaign: &str, recipients: &Value) -> Value {
    json!({"campaign_id": campaign, "recipients": recipients, "trigger_properties": {"text": "common", "x": 1}})
}

#[tokio::test]
async fn a_campaign_reaches_those_who_exist_once_per_request() {
    let braze = start().await;
    braze.set_campaign(Campaign::live("c"));
    braze.add_user("u", &json!({}));
    let recipients = json!([
        {"external_user_id": "u", "trigger_properties": {"text": "first"}},
        {"external_user_id": "stranger"},
        {"external_user_id": "u", "trigger_properties": {"text": "last"}, "attributes": {"replied": true}},
    ]);
    let (status, answer) = post(&braze, Endpoint::TriggerSend, to("c", &recipients)).await;
    assert_eq!((status, &answer["message"]), (201, &json!("success")));
    let sent = braze.sent_messages();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        Value::from(sent[0].trigger_properties.clone()),
        json!({"text": "last", "x": 1})
    );
    assert_eq!(sent[0].dispatch_id, answer["dispatch_id"]);
    assert_eq!(braze.profile("u").unwrap().attribute("replied").unwrap(), true);
    assert!(braze.profile("stranger").is_none());
}

#[tokio::test]
async fn a_campaign_that_will_not_send_says_nothing_of_it() {
    let braze = start().await;
    braze.add_user("u", &json!({}));
    braze.set_campaign(Campaign::live("stopped").stopped());
    braze.set_campaign(Campaign::live("once").once_per_person());
    for campaign in ["stopped", "once", "once"] {
        let request = to(campaign, &json!([{"external_user_id": "u"}]));
        assert_eq!(post(&braze, Endpoint::TriggerSend, request).await.0, 201);
    }
    assert_eq!(braze.sent_messages().len(), 1);
}

#[tokio::test]
async fn a_wrong_campaign_request_is_refused() {
    let braze = start().await;
    braze.set_campaign(Campaign::live("c"));
    let large = "x".repeat(50_000);
    let requests = [
        to("other", &json!([{"external_user_id": "u"}])),
        to("c", &json!([])),
        to("c", &json!(vec![json!({"external_user_id": "u"}); 51])),
        to("c", &json!([{"external_id": "u"}])),
        to("c", &json!([{"external_user_id": "u", "user_alias": alias("1")}])),
        to("c", &json!([{"email": "a@example.com"}])),
        to(
            "c",
            &json!([{"external_user_id": "u", "trigger_properties": {"text": large}}]),
        ),
        to(
            "c",
            &json!([{"user_alias": alias("1"), "send_to_existing_only": false, "attributes": {"a": 1}}]),
        ),
        to(
            "c",
            &json!([{"external_user_id": "u", "send_to_existing_only": false}]),
        ),
        json!({"campaign_id": "c", "broadcast": true}),
    ];
    for request in &requests {
        let (status, _) = post(&braze, Endpoint::TriggerSend, request.clone()).await;
        assert_eq!(status, 400, "{request}");
    }
    assert_eq!(braze.take_refusals().len(), requests.len());
    assert!(braze.sent_messages().is_empty());
}

#[tokio::test]
async fn scripted_faults_come_in_order_and_in_all_forms() {
    let braze = start().await;
    let body = json!({"attributes": [{"external_id": "u", "a": 1}]});
    let header = |response: &Response, name: &str| -> Option<i64> {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().parse().unwrap())
    };
    for form in [
        RateLimit::RetryAfter(7),
        RateLimit::ResetAt(Timestamp::from_second(1_795_255_207).unwrap()),
        RateLimit::ResetIn(7),
        RateLimit::Silent,
    ] {
        braze.script(Endpoint::Track, faults::rate_limited(form));
        let response = send(&braze, "/users/track", "key", &body).await.unwrap();
        assert_eq!(response.status(), 429);
        let reset = header(&response, "x-ratelimit-reset");
        let retry_after = header(&response, "x-ratelimit-retry-after");
        match form {
            RateLimit::RetryAfter(_) => assert_eq!((reset, retry_after), (None, Some(7))),
            RateLimit::ResetAt(_) => assert_eq!((reset, retry_after), (Some(1_795_255_207), None)),
            RateLimit::ResetIn(_) => assert_eq!((reset, retry_after), (Some(7), None)),
            RateLimit::Silent => assert_eq!((reset, retry_after), (None, None)),
        }
    }
    assert!(braze.profiles().is_empty());
    braze.script(Endpoint::Track, faults::unavailable(504));
    braze.script(Endpoint::Track, faults::not_json());
    let statuses = [
        send(&braze, "/users/track", "key", &body)
            .await
            .unwrap()
            .status()
            .as_u16(),
        send(&braze, "/users/track", "key", &body)
            .await
            .unwrap()
            .status()
            .as_u16(),
    ];
    assert_eq!(statuses, [504, 201]);
    assert!(braze.profile("u").is_some());
}

#[tokio::test]
async fn a_cut_connection_may_or_may_not_have_had_an_effect() {
    let braze = start().await;
    let body = |user: &str| json!({"attributes": [{"external_id": user, "a": 1}]});
    braze.script(Endpoint::Track, Fault::CutBeforeProcessing);
    braze.script(Endpoint::Track, Fault::CutAfterProcessing);
    braze.script(Endpoint::Track, faults::timeout(Duration::from_millis(20)));
    for user in ["before", "after", "silent"] {
        assert!(
            send(&braze, "/users/track", "key", &body(user)).await.is_err(),
            "{user}"
        );
    }
    assert_eq!(
        send(&braze, "/users/track", "key", &body("fine"))
            .await
            .unwrap()
            .status(),
        201
    );
    let known: Vec<_> = braze
        .profiles()
        .into_iter()
        .filter_map(|profile| profile.external_id)
        .collect();
    assert_eq!(known, ["after", "fine"]);
    let statuses: Vec<_> = braze.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [None, None, None, Some(201)]);
}

#[tokio::test]
async fn scripted_rejections_and_poison() {
    let braze = start().await;
    let users = |names: &[&str]| json!({"attributes": names.iter().map(|name| json!({"external_id": name, "a": 1})).collect::<Vec<_>>()});
    braze.script_rejections([Rejection {
        array: InputArray::Attributes,
        index: 1,
        kind: "BLACKLISTED_EXTERNAL_USER_ID".to_owned(),
    }]);
    let (status, answer) = track(&braze, users(&["a", "b"])).await;
    assert_eq!((status, &answer["attributes_processed"]), (201, &json!(1)));
    assert_eq!(answer["errors"][0]["index"], 1);
    braze.poison("bad");
    let (status, answer) = track(&braze, users(&["c", "bad"])).await;
    assert_eq!((status, answer), (400, json!({"message": "Bad syntax"})));
    assert_eq!(track(&braze, users(&["c"])).await.0, 201);
    assert_eq!(braze.profiles().len(), 2);
}

#[tokio::test]
async fn an_outage_meets_everything_until_it_ends() {
    let braze = start().await;
    let body = json!({"attributes": [{"external_id": "u", "a": 1}]});
    braze.begin_outage(faults::rate_limited(RateLimit::RetryAfter(1)));
    for _ in 0..3 {
        assert_eq!(track(&braze, body.clone()).await.0, 429);
    }
    braze.end_outage();
    assert_eq!(track(&braze, body).await.0, 201);
    assert!(
        braze
            .until(Duration::ZERO, |braze| braze.request_count() == 4)
            .await
    );
}

fn not_drained(braze: &FakeBraze) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| braze.assert_drained())).is_err()
}

#[tokio::test]
async fn what_was_scripted_must_be_met_and_refusals_must_be_expected() {
    let braze = start().await;
    braze.assert_drained();
    braze.script(Endpoint::Track, faults::forbidden());
    assert!(not_drained(&braze));
    assert_eq!(track(&braze, json!({})).await.0, 403);
    braze.assert_drained();
    assert_eq!(track(&braze, json!({"attributes": []})).await.0, 400);
    assert!(not_drained(&braze));
    assert_eq!(
        braze.take_refusals(),
        [
            "400 POST /users/track: Valid data must be provided in the 'attributes', 'events', or 'purchases' fields."
        ]
    );
    braze.poison("x");
    assert!(not_drained(&braze));
    braze.clear_script();
}

#[tokio::test]
async fn dropping_the_handle_checks_and_stops() {
    let braze = start().await;
    let url = braze.url();
    drop(braze);
    let gone = async {
        while client().post(&url).send().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.unwrap();
    let braze = start().await;
    braze.script(Endpoint::Track, faults::forbidden());
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(braze))).is_err());
}

#[tokio::test]
async fn keys_are_not_shown() {
    let shown = format!("{:?}", Options::new("key-one").trigger_api_key("key-two"));
    assert!(
        !shown.contains("key-one") && !shown.contains("key-two"),
        "{shown}"
    );
}

#[tokio::test]
async fn deleted_profiles_are_gone_by_one_kind_of_identifier() {
    let braze = start().await;
    for body in [
        json!({"attributes": [{"external_id": "u", "a": 1}]}),
        json!({"attributes": [{"user_alias": alias("7"), "_update_existing_only": false, "a": 1}]}),
    ] {
        track(&braze, body).await;
    }
    let delete = async |body: Value| post(&braze, Endpoint::Delete, body).await;
    let (status, _) = delete(json!({"external_ids": ["u"], "user_aliases": [alias("7")]})).await;
    assert_eq!((status, braze.profiles().len()), (400, 2));
    let (status, _) = delete(json!({"external_ids": vec!["u"; 51]})).await;
    assert_eq!(status, 400);
    assert_eq!(braze.take_refusals().len(), 2);
    let taken = |deleted: usize| (201, json!({"deleted": deleted, "message": "success"}));
    assert_eq!(delete(json!({"external_ids": ["u", "nobody"]})).await, taken(1));
    assert_eq!(delete(json!({"user_aliases": [alias("7")]})).await, taken(1));
    assert_eq!(delete(json!({"user_aliases": [alias("7")]})).await, taken(0));
    assert!(braze.profiles().is_empty());
}
