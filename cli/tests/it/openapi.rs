//! `docs/openapi.yaml` against the template's routes and what the functions really answer.

use std::collections::BTreeSet;

use jsonschema::Validator;
use serde_json::{Value, json};
use testkit::template::{Template, yaml};

use crate::house::{House, payload};

const READER: &str = "development-partner-api-token";
const BRAZE: &str = "development-inbound-token";
const EXTERNAL: &str = "development-external-system-token";
const MESSAGE: &str = r#"{"message":"hello","user_id":"42","dispatch_id":"d1"}"#;

/// A request, and the status that it gets: method, route, what follows its fixed part, bearer token, body.
type Case = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    u16,
);

const INSTALL: &str = "/fbe/installs/{business}";
const STATUS: &str = "/meta/deletion/{code}";
/// Signed with the development app secret.
const SIGNED: &str = "signed_request=2CjZjmIEoUMOqiZu8YfcaYaVUcICl7dxVJSgtO_RQOU.eyJhbGdvcml0aG0iOiJITUFDLVNIQTI1NiIsImlzc3VlZF9hdCI6MTI5MTgzNjgwMCwidXNlcl9pZCI6IjIxODQ3MSJ9";
const FORGED: &str = "signed_request=ixUmh4zxdy9iElekeAa9mDP8pxLMn1p7Cf8bIcCOZfU.eyJhbGdvcml0aG0iOiJITUFDLVNIQTI1NiIsImlzc3VlZF9hdCI6MTI5MTgzNjgwMCwidXNlcl9pZCI6IjIxODQ3MSJ9";
const HANDSHAKE: &str = "?hub.mode=subscribe&hub.challenge=1&hub.verify_token=development-verify-token";
const FALSE_HANDSHAKE: &str = "?hub.mode=subscribe&hub.challenge=1&hub.verify_token=wrong";
const STRANGER: &str = r#"{"user_id": "nobody", "text": "hello"}"#;
const RETIRED: &str =
    r#"{"user_id": "1", "text": "hello", "messaging_type": "MESSAGE_TAG", "tag": "ACCOUNT_UPDATE"}"#;

const CASES: [Case; 26] = [
    ("get", INSTALL, "shop-42-unique-id", READER, "", 200),
    ("get", INSTALL, "nobody", READER, "", 404),
    ("get", INSTALL, "shop-42-unique-id", BRAZE, "", 401),
    (
        "get",
        "/fbe/installs",
        "?pixel_id=1964583793745557",
        READER,
        "",
        200,
    ),
    ("get", "/fbe/installs", "?pixel_id=7", READER, "", 200),
    ("get", "/fbe/installs", "", READER, "", 400),
    ("get", "/fbe/installs", "", "", "", 401),
    ("get", "/fbe/webhook", HANDSHAKE, "", "", 200),
    ("get", "/fbe/webhook", FALSE_HANDSHAKE, "", "", 403),
    ("get", "/messenger/webhook", HANDSHAKE, "", "", 200),
    ("get", "/messenger/webhook", FALSE_HANDSHAKE, "", "", 403),
    ("post", "/fbe/webhook", "", "", "{}", 401),
    ("post", "/messenger/webhook", "", "", "{}", 401),
    ("get", STATUS, "nothing", "", "", 404),
    ("post", "/meta/deletion", "", "", SIGNED, 200),
    ("post", "/meta/deletion", "", "", "", 400),
    ("post", "/meta/deletion", "", "", FORGED, 401),
    ("post", "/meta/deauthorize", "", "", SIGNED, 200),
    ("post", "/messenger/send", "", BRAZE, "{}", 400),
    ("post", "/messenger/send", "", READER, "{}", 401),
    ("post", "/messenger/send", "", BRAZE, STRANGER, 404),
    ("post", "/messenger/send", "", BRAZE, RETIRED, 409),
    ("post", "/whatsapp/inbound", "", BRAZE, MESSAGE, 202),
    ("post", "/whatsapp/inbound", "", READER, MESSAGE, 401),
    ("post", "/whatsapp/reply", "", EXTERNAL, "{}", 400),
    ("post", "/whatsapp/reply", "", BRAZE, "{}", 401),
];

fn document() -> Value {
    yaml::parse(include_str!("../../../docs/openapi.yaml")).unwrap()
}

/// Validates what the pointer leads to in the document.
fn validator(document: &Value, pointer: &str) -> Validator {
    // Draft 2020-12 is OpenAPI 3.1's own; the components are found as the document's.
    // A path's braces have to be escaped in the fragment of a URI.
    let fragment = pointer.replace('{', "%7B").replace('}', "%7D");
    let schema = json!({"$ref": format!("#{fragment}"), "components": document["components"], "paths": document["paths"]});
    jsonschema::draft202012::new(&schema).unwrap()
}

fn escaped(path: &str) -> String {
    path.replace('~', "~0").replace('/', "~1")
}

#[test]
fn it_describes_the_routes_of_the_template_and_no_others() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods
                .map(|method| (method.to_uppercase(), path.clone()))
                .collect::<Vec<_>>()
        })
        .collect();
    let template = Template::of_the_repository().unwrap();
    let routes: BTreeSet<(String, String)> = template
        .functions()
        .iter()
        .flat_map(|function| &function.routes)
        .map(|route| (route.method.clone(), route.path.clone()))
        .collect();
    assert_eq!(described, routes);
    // Every reference leads somewhere.
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        drop(validator(&document, &format!("/components/schemas/{name}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_functions_answer_is_what_it_says() {
    let document = document();
    let house = House::live(&[]).await;
    for case in ["fbe/install", "fbe/install_other_manager"] {
        house.deliver(&payload(case)).await;
    }
    house.drain().await;
    let client = shared::clients::http::client(std::time::Duration::from_secs(20));
    for (method, route, rest, token, body, expected) in CASES {
        let path = route.replace("{business}", "").replace("{code}", "") + rest;
        let what = format!("{method} {path}");
        let url = format!("{}{path}", house.stack.url());
        let mut request = client.request(method.to_uppercase().parse().unwrap(), url);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if !body.is_empty() {
            let content_type = if body.starts_with("signed_request=") {
                "application/x-www-form-urlencoded"
            } else {
                "application/json"
            };
            request = request.header("content-type", content_type).body(body);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{what}");
        let content_type = answer.headers()["content-type"].to_str().unwrap();
        let media_type = content_type.split(';').next().unwrap().to_owned();
        let text = answer.text().await.unwrap();
        let value = if media_type == "application/json" {
            serde_json::from_str(&text).unwrap()
        } else {
            json!(text)
        };
        let response = format!("/paths/{}/{method}/responses/{expected}", escaped(route));
        assert_described(&document, response, &media_type, &value, &what);
    }
    let notices = house.stack.fakes().partner.as_ref().unwrap().notices();
    assert_eq!(notices.len(), 1, "the claim is told to no one");
    let notice = validator(&document, "/components/schemas/Notice");
    assert!(notice.is_valid(&notices[0].body), "{}", notices[0].body);
}

/// The answer fits the schema of the response that the pointer leads to.
fn assert_described(document: &Value, response: String, media_type: &str, value: &Value, what: &str) {
    let described = document.pointer(&response);
    let described = described.unwrap_or_else(|| panic!("{what}: {response} is not described"));
    let response = match described["$ref"].as_str() {
        Some(reference) => reference.trim_start_matches('#').to_owned(),
        None => response,
    };
    let schema = format!("{response}/content/{}/schema", escaped(media_type));
    assert!(
        document.pointer(&schema).is_some(),
        "{what}: {media_type} is not described"
    );
    let problems: Vec<String> = validator(document, &schema)
        .iter_errors(value)
        .map(|error| error.to_string())
        .collect();
    assert!(problems.is_empty(), "{what}: {problems:?} in {value}");
}
