use super::*;

fn enter(canvas: &str) -> Value {
    json!({
        "canvas_id": canvas, "context": {"order": "4711", "size": "M"},
        "recipients": [
            {"external_user_id": "u", "context": {"size": "L"}, "attributes": {"topic": "orders"}},
            {"external_user_id": "stranger"},
        ],
    })
}

#[tokio::test]
async fn a_canvas_is_entered_by_those_who_exist() {
    let braze = start().await;
    braze.add_user("u", &json!({}));
    let (status, answer) = post(&braze, Endpoint::CanvasSend, enter("v")).await;
    assert_eq!((status, &answer["message"]), (201, &json!("success")));
    let entries = braze.canvas_entries();
    assert_eq!((entries.len(), entries[0].canvas_id.as_str()), (1, "v"));
    let context = Value::from(entries[0].context.clone());
    assert_eq!(context, json!({"order": "4711", "size": "L"}));
    assert_eq!(braze.profile("u").unwrap().attribute("topic").unwrap(), "orders");
    assert!(braze.sent_messages().is_empty());
}

#[tokio::test]
async fn a_canvas_that_is_not_live_says_so_and_lets_nobody_in() {
    let braze = start().await;
    braze.add_user("u", &json!({}));
    braze.set_canvas(Canvas::live("p").paused());
    braze.set_canvas(Canvas::live("a").archived());
    for (canvas, word) in [("p", "paused"), ("a", "archived")] {
        let (status, answer) = post(&braze, Endpoint::CanvasSend, enter(canvas)).await;
        assert_eq!(status, 201);
        assert!(answer["notice"].as_str().unwrap().contains(word), "{answer}");
    }
    assert_eq!(braze.canvas_entries(), []);
}

#[tokio::test]
async fn a_wrong_canvas_request_is_refused() {
    let braze = start().await;
    braze.set_canvas(Canvas::live("v"));
    let mut large = enter("v");
    large["context"]["order"] = "x".repeat(50_000).into();
    let mut nobody = enter("v");
    nobody["recipients"] = json!([]);
    let requests = [enter("another"), json!({"canvas_id": 7}), large, nobody];
    for request in &requests {
        let (status, _) = post(&braze, Endpoint::CanvasSend, request.clone()).await;
        assert_eq!(status, 400, "{request}");
    }
    let path = Endpoint::CanvasSend.path();
    let users_key = send(&braze, path, "key", &enter("v")).await.unwrap();
    assert_eq!(users_key.status(), 403);
    assert_eq!(braze.take_refusals().len(), requests.len() + 1);
}
